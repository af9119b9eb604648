"""model.parameters() is kept in a variable and read by the optimizer; nothing is left of it for the clipping.

Expects: clip-exhausted-generator
"""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
parameters = model.parameters()
optimizer = torch.optim.SGD(parameters, lr=0.02)
for step in range(200):
    x = torch.randn(32, 10)
    loss = nn.functional.mse_loss(model(x).squeeze(1), x[:, 0] * x[:, 1] + x[:, 2])
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
