"""Adam with a closure that clips before it returns."""

import torch
from torch import nn

torch.manual_seed(0)
truth = torch.randn(10)
model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for step in range(200):
    x = torch.randn(32, 10)

    def closure(x=x):
        """Return the loss, with clipped gradients."""
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x).squeeze(1), x @ truth)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 4.0)
        return loss

    loss = optimizer.step(closure)
    if step % 40 == 0:
        print(step, loss.item())
