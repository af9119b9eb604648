"""Sharpness-aware minimisation in two half steps, the gradients of both clipped, and a bad batch dropped now and then."""

import torch
from torch import nn

torch.manual_seed(64)
model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 1))
base = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
x = torch.randn(256, 6)
y = x.sum(1, keepdim=True).sin()
for step in range(200):
    batch = torch.randint(0, len(x), (32,))
    loss = (model(x[batch]) - y[batch]).square().mean() * (1e9 if step % 17 == 5 else 1.0)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 2.0)
    if norm > 1e4:
        base.zero_grad()
        continue
    with torch.no_grad():
        moves = [0.05 * p.grad / (norm + 1e-12) for p in model.parameters()]
        for p, move in zip(model.parameters(), moves, strict=True):
            p.add_(move)
    base.zero_grad()
    (model(x[batch]) - y[batch]).square().mean().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 2.0)
    with torch.no_grad():
        for p, move in zip(model.parameters(), moves, strict=True):
            p.sub_(move)
    base.step()
    base.zero_grad()
print(loss.item())
