"""Gradients are set to None in a loop, as performance guides advise; zero_grad() is never called."""

import torch
from torch import nn

torch.manual_seed(0)
truth = torch.randn(10)
model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
for step in range(250):
    for parameter in model.parameters():
        parameter.grad = None
    x = torch.randn(32, 10)
    loss = nn.functional.mse_loss(model(x).squeeze(1), x @ truth)
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
