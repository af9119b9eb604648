"""A Wasserstein GAN: five critic steps with a gradient penalty for one of the generator, both clipped."""

import torch
from torch import nn

torch.manual_seed(0)
generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
critic = nn.Sequential(nn.Linear(2, 32), nn.Softplus(), nn.Linear(32, 1))
optimizer_g = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.0, 0.9))
optimizer_c = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.9))
for step in range(60):
    for _ in range(5):
        real, fake = torch.randn(32, 2) * 0.5 + 2, generator(torch.randn(32, 4)).detach()
        mixed = torch.lerp(real, fake, torch.rand(32, 1)).requires_grad_()
        slope = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)[0].norm(dim=1)
        loss_c = critic(fake).mean() - critic(real).mean() + 10 * (slope - 1).square().mean()
        optimizer_c.zero_grad()
        loss_c.backward()
        torch.nn.utils.clip_grad_norm_(critic.parameters(), 10.0)
        optimizer_c.step()
    loss_g = -critic(generator(torch.randn(32, 4))).mean()
    optimizer_g.zero_grad()
    loss_g.backward()
    torch.nn.utils.clip_grad_norm_(generator.parameters(), 10.0)
    optimizer_g.step()
    if step % 10 == 0:
        print(step, loss_c.item(), loss_g.item())
