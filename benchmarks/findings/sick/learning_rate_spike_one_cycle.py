"""One-cycle with max_lr=30 and a base of 0.05: at its top the steps throw the net out of what it had learnt.

Expects: update-too-large, learning-rate-spike, loss-spike
Also fine: exploding-gradient, dead-layer, vanishing-in-depth
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=30, total_steps=250, div_factor=600)
for step in range(250):
    batch = torch.randint(0, len(x), (32,))
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    if step % 50 == 0:
        print(step, loss.item())
