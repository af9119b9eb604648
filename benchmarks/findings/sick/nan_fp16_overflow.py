"""A net in pure float16 on features in the hundreds: error times feature, summed over the batch, passes 65504.

Expects: non-finite-gradient
Also fine: update-too-small, update-too-large
"""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 1)).half()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
for step in range(80):
    x = 200 * torch.randn(64, 20)
    loss = (model(x.half()).squeeze(1) - x[:, 0].half()).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(step, loss.item())
