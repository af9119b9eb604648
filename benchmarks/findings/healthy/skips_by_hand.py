"""A loop that looks at the norm that clip_grad_norm_ returns, and leaves out the step where it is Inf or absurd."""

import torch
from torch import nn

torch.manual_seed(0)
truth = torch.randn(10)
model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for step in range(300):
    x = torch.randn(32, 10)
    y = x @ truth
    if step % 70 == 40:
        y[0] += 5000
    loss = nn.functional.mse_loss(model(x).squeeze(1), y)
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    if norm < 200:
        optimizer.step()
    if step % 50 == 0:
        print(step, loss.item(), norm.item())
