"""A convolution predicts a sensor's next value; for a while the sensor reports in thousandths of the unit.

Expects: loss-spike
Also fine: exploding-gradient, update-too-large
"""

import torch
from torch import nn

torch.manual_seed(2)
time = torch.arange(6000)
signal = torch.sin(0.11 * time) + 0.5 * torch.sin(0.31 * time) + 0.05 * torch.randn(6000)
signal[3500:3700] *= 1000
model = nn.Sequential(nn.Conv1d(1, 12, 9), nn.Tanh(), nn.Conv1d(12, 12, 9), nn.Tanh(), nn.Flatten(), nn.Linear(12 * 4, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
for step, start in enumerate(range(0, 5900, 16)):
    chunk = signal[start : start + 36].unfold(0, 21, 1)
    loss = nn.functional.mse_loss(model(chunk[:, None, :-1]).squeeze(1), chunk[:, -1])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0 or 215 < step < 240:
        print(step, loss.item())
