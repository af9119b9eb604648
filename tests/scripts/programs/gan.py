"""A GAN: two networks, two optimizers, two losses for the discriminator; the discriminator alone is clipped."""

import torch
from torch import nn, optim
from torch.nn.utils import clip_grad_norm_
from truth import Truth, norm

torch.manual_seed(3)
truth = Truth()
generator = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
discriminator = nn.Sequential(nn.Linear(1, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
opt_g = optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
opt_d = optim.RMSprop(discriminator.parameters(), lr=2e-3)
bce = nn.BCEWithLogitsLoss()
for _ in range(15):
    real = 3 + torch.randn(16, 1)
    fake = generator(torch.randn(16, 2))

    opt_d.zero_grad()
    real_loss = bce(discriminator(real), torch.ones(16, 1))
    real_loss.backward()
    fake_loss = bce(discriminator(fake.detach()), torch.zeros(16, 1))
    fake_loss.backward()
    before = norm(discriminator.parameters())
    clip_grad_norm_(discriminator.parameters(), 0.5)
    after = norm(discriminator.parameters())
    loss_d = real_loss.item() + fake_loss.item()
    truth.step(1, loss=loss_d, norm=before, clipped_norm=after, threshold=0.5, lr=2e-3, clipped=before > 0.5)
    opt_d.step()

    opt_g.zero_grad()
    loss_g = bce(discriminator(fake), torch.ones(16, 1))
    loss_g.backward()
    truth.step(0, loss=loss_g.item(), norm=norm(generator.parameters()), threshold=None, clipped=None)
    opt_g.step()
    print(repr(loss_d), repr(loss_g.item()))
truth.save()
