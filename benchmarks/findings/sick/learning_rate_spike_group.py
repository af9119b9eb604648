"""Two optimizers, and on resuming at step 120 the second gets a learning rate of 1.0 instead of 0.001.

Expects: learning-rate-spike
Also fine: update-too-large, loss-spike, exploding-gradient, dead-layer
"""

import torch
from torch import nn

torch.manual_seed(0)
encoder = nn.Sequential(nn.Linear(10, 32), nn.Tanh())
head = nn.Linear(32, 1)
truth = torch.randn(10)
optimizer_e = torch.optim.Adam(encoder.parameters(), lr=1e-3)
optimizer_h = torch.optim.Adam(head.parameters(), lr=1e-3)
for step in range(250):
    if step == 120:
        optimizer_h.param_groups[0]["lr"] = 1.0
    x = torch.randn(32, 10)
    loss = nn.functional.mse_loss(head(encoder(x)).squeeze(1), (x @ truth).sin())
    optimizer_e.zero_grad()
    optimizer_h.zero_grad()
    loss.backward()
    optimizer_e.step()
    optimizer_h.step()
    if step % 50 == 0:
        print(step, loss.item())
