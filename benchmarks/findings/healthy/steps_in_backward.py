"""Each parameter has an optimizer of its own, which steps inside backward as soon as the gradient is there."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
optimizers = {p: torch.optim.SGD([p], lr=0.05) for p in model.parameters()}


def act(p):
    """Step one parameter, and free its gradient."""
    optimizers[p].step()
    optimizers[p].zero_grad()


for p in model.parameters():
    p.register_post_accumulate_grad_hook(act)
x = torch.randn(512, 8)
y = x.sum(1, keepdim=True).sin()
for _ in range(200):
    batch = torch.randint(0, len(x), (32,))
    loss = nn.functional.mse_loss(model(x[batch]), y[batch])
    loss.backward()
print(loss.item())
