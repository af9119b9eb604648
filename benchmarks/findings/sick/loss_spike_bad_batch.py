"""A dense net on digits that learns well until one batch comes whose pixels nobody divided by 16.

Expects: loss-spike, exploding-gradient
Also fine: update-too-large
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(300):
    batch = torch.randint(0, len(x), (32,))
    images = 16 * x[batch] if step == 200 else x[batch]
    loss = nn.functional.cross_entropy(model(images), y[batch].flip(0) if step == 200 else y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0 or 198 < step < 205:
        print(step, loss.item())
