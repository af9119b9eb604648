"""Four micro-batches a step, and each clips what has been gathered so far: the first ones count least.

Expects: clip-per-micro-batch
Also fine: always-clipping, clipped-twice
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
for step in range(100):
    for _ in range(4):
        batch = torch.randint(0, len(x), (8,))
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch]) / 4
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    optimizer.zero_grad()
    if step % 20 == 0:
        print(step, 4 * loss.item())
