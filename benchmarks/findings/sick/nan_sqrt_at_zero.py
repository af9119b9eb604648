"""A Siamese net whose distance is a bare square root: a pair of equal images has distance 0 and the slope of sqrt there is Inf.

Expects: non-finite-gradient
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
for step in range(150):
    left = torch.randint(0, 400, (16,))
    right = left + torch.randint(1, 400, (16,))
    if step == 90:
        right[3] = left[3]
    distance = (model(x[left]) - model(x[right])).square().sum(1).sqrt()
    same = (y[left] == y[right]).float()
    loss = (same * distance + (1 - same) * (1 - distance).relu()).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 30 == 0:
        print(step, loss.item())
