"""Normalised gradient descent: every step has the same length by design, under a learning rate that falls."""

import torch
from torch import nn

import gradclip

torch.manual_seed(0)
truth = torch.randn(10)
model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
gradclip.attach(optimizer, gradclip.normalize(1.0), parameters=model)
for step in range(300):
    x = torch.randn(32, 10)
    loss = nn.functional.mse_loss(model(x).squeeze(1), x @ truth)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    if step % 50 == 0:
        print(step, loss.item())
