"""A GAN that never clears the discriminator, so the gradients of the generator's loss stay in it and are stepped with.

Expects: zero-grad-missing
Also fine: exploding-gradient, update-too-large, loss-spike
"""

import torch
from torch import nn

torch.manual_seed(0)
generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
discriminator = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
optimizer_g = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.5, 0.999))
loss_of = nn.BCEWithLogitsLoss()
for step in range(200):
    real = torch.randn(32, 2) * 0.5 + 2
    fake = generator(torch.randn(32, 4))
    loss_d = loss_of(discriminator(real), torch.ones(32, 1)) + loss_of(discriminator(fake.detach()), torch.zeros(32, 1))
    loss_d.backward()
    optimizer_d.step()
    loss_g = loss_of(discriminator(fake), torch.ones(32, 1))
    optimizer_g.zero_grad()
    loss_g.backward()
    optimizer_g.step()
    if step % 40 == 0:
        print(step, loss_d.item(), loss_g.item())
