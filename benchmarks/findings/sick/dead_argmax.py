"""A quantised bottleneck that rounds its code: the slope of a step function is zero, so the encoder never learns.

Expects: dead-layer, unused-parameter
Also fine: vanishing-in-depth, update-too-small
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
x = torch.tensor(load_digits().data / 16, dtype=torch.float32)
encoder = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.Sigmoid())
decoder = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 64))
optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
for step in range(200):
    images = x[torch.randint(0, len(x), (32,))]
    code = (4 * encoder(images)).round() / 4
    loss = nn.functional.mse_loss(decoder(code), images)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
