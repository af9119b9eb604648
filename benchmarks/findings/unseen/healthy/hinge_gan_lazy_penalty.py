"""A hinge GAN whose gradient penalty is added to every eighth step of the discriminator alone, eight times as heavy."""

import torch
from torch import nn

torch.manual_seed(29)
generator = nn.Sequential(nn.Linear(3, 40), nn.LeakyReLU(0.2), nn.Linear(40, 2))
judge = nn.Sequential(nn.Linear(2, 40), nn.LeakyReLU(0.2), nn.Linear(40, 40), nn.LeakyReLU(0.2), nn.Linear(40, 1))
optimizers = {
    "generator": torch.optim.RMSprop(generator.parameters(), lr=5e-4),
    "judge": torch.optim.RMSprop(judge.parameters(), lr=1e-3),
}


def real(count):
    """Draw from a ring."""
    angle = 6.28 * torch.rand(count)
    return torch.stack([angle.cos(), angle.sin()], dim=1) + 0.05 * torch.randn(count, 2)


for step in range(250):
    truth, made = real(64).requires_grad_(), generator(torch.randn(64, 3))
    score = judge(truth)
    loss_judge = (1 - score).relu().mean() + (1 + judge(made.detach())).relu().mean()
    if step % 8 == 0:
        (slope,) = torch.autograd.grad(score.sum(), truth, create_graph=True)
        loss_judge = loss_judge + 8 * 0.5 * slope.square().sum(1).mean()
    optimizers["judge"].zero_grad()
    loss_judge.backward()
    optimizers["judge"].step()
    loss_generator = -judge(made).mean()
    optimizers["generator"].zero_grad()
    loss_generator.backward()
    optimizers["generator"].step()
    if step % 50 == 0:
        print(step, loss_judge.item(), loss_generator.item(), made.norm(dim=1).mean().item())
