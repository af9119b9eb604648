"""The clipping is given the exponential moving average of the model, which has no gradients, and not the model.

Expects: clip-wrong-parameters
"""

import copy

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
averaged = copy.deepcopy(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
for step in range(200):
    x = torch.randn(32, 10)
    loss = nn.functional.mse_loss(model(x).squeeze(1), x[:, 0] * x[:, 1] + x[:, 2])
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(averaged.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        for mean, weight in zip(averaged.parameters(), model.parameters(), strict=True):
            mean.lerp_(weight, 0.01)
    if step % 40 == 0:
        print(step, loss.item())
