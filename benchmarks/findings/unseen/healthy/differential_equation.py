"""A net that solves u' = -2 u with u(0) = 1: Adam first, then LBFGS with line search, on second derivatives."""

import torch
from torch import nn

torch.manual_seed(38)
net = nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 1))
time = torch.linspace(0, 2, 40)[:, None].requires_grad_()


def residual():
    """Return how far the net is from a solution."""
    u = net(time)
    (slope,) = torch.autograd.grad(u.sum(), time, create_graph=True)
    return (slope + 2 * u).square().mean() + 10 * (u[0] - 1).square().sum()


adam = torch.optim.Adam(net.parameters(), lr=5e-3)
for step in range(150):
    adam.zero_grad()
    loss = residual()
    loss.backward()
    adam.step()
    if step % 50 == 0:
        print("adam", step, loss.item())

lbfgs = torch.optim.LBFGS(net.parameters(), max_iter=8, line_search_fn="strong_wolfe")


def closure():
    """Evaluate the loss and its gradient."""
    lbfgs.zero_grad()
    loss = residual()
    loss.backward()
    return loss


for step in range(15):
    loss = lbfgs.step(closure)
    if step % 5 == 0:
        print("lbfgs", step, loss.item())
