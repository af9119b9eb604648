"""Least squares without noise, trained far past its minimum: the loss and the gradients go to zero, and that is success."""

import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(200, 6)
y = x @ torch.randn(6) + 1
model = nn.Linear(6, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
for step in range(300):
    loss = nn.functional.mse_loss(model(x).squeeze(1), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
