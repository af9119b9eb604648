"""Two rows a batch, some features far noisier than others: the norms go over a decade, with the threshold at their middle.

Expects: threshold-in-the-noise
"""

import torch
from torch import nn

torch.manual_seed(0)
truth = torch.randn(10)
model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.002)
for step in range(400):
    x = torch.randn(2, 10)
    y = x @ truth + 3 * x[:, 0].abs() * torch.randn(2)
    loss = nn.functional.mse_loss(model(x).squeeze(1), y)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 15.0)
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
