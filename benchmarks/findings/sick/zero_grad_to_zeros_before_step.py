"""The same slip with gradients filled with zeros: Adam steps along on nothing, and the loss stays where it was.

Expects: zero-grad-before-step
Also fine: backward-without-step, unused-parameter, dead-layer, update-too-small
"""

import torch
from torch import nn

torch.manual_seed(0)
truth = torch.randn(10)
model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for step in range(150):
    x = torch.randn(32, 10)
    loss = nn.functional.mse_loss(model(x).squeeze(1), x @ truth)
    loss.backward()
    model.zero_grad(set_to_none=False)
    optimizer.step()
    if step % 30 == 0:
        print(step, loss.item())
