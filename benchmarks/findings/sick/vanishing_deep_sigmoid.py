"""Ten sigmoid layers on digits: each one divides the gradient by four or more, and the first layers stand still.

Expects: vanishing-in-depth
Also fine: update-too-small
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
hidden = [part for _ in range(9) for part in (nn.Linear(64, 64), nn.Sigmoid())]
model = nn.Sequential(*hidden, nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(200):
    batch = torch.randint(0, len(x), (32,))
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
