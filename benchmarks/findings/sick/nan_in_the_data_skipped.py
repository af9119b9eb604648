"""Every twentieth batch holds a NaN; gradclip skips those steps, so training goes on, and the data are still bad.

Expects: non-finite-gradient
"""

import torch
from torch import nn

import gradclip

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
gradclip.attach(optimizer, "global_norm:2.0", parameters=model)
for step in range(200):
    x = torch.randn(32, 8)
    y = x[:, :2].sum(1)
    if step % 20 == 13:
        x[4, 3] = float("nan")
    loss = nn.functional.mse_loss(model(x).squeeze(1), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
