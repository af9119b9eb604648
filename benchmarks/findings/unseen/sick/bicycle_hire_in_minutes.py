"""Bicycle hire from station, weather and learnt waves in time, where the time is counted in minutes since New Year.

Expects: one-tensor-makes-the-norm
Also fine: always-clipping, update-too-small
"""

import math

import torch
from torch import nn

STATIONS, YEAR = 30, 365 * 24 * 60


class Hire(nn.Module):
    """Adds the waves of the time to the station and the weather."""

    def __init__(self):
        super().__init__()
        self.frequency = nn.Parameter(torch.randn(8))
        self.phase = nn.Parameter(torch.zeros(8))
        self.station = nn.Embedding(STATIONS, 8)
        self.hidden = nn.Linear(8 + 8 + 3, 48)
        self.out = nn.Linear(48, 1)

    def forward(self, time, station, weather):
        """Return the hires, standardised."""
        waves = torch.sin(time[:, None] * self.frequency + self.phase)
        joined = torch.cat([waves, self.station(station), weather], 1)
        return self.out(torch.relu(self.hidden(joined))).squeeze(1)


torch.manual_seed(8)
size = 4000
time = torch.randint(YEAR, (size,)).float()
station = torch.randint(STATIONS, (size,))
weather = torch.randn(size, 3)
hires = torch.randn(STATIONS)[station] + 0.8 * weather[:, 0] - 0.6 * weather[:, 1].relu()
hires = hires - 0.5 * torch.cos(2 * math.pi * time / YEAR) + 0.1 * torch.randn(size)
hires = (hires - hires.mean()) / hires.std()

model = Hire()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(310):
    rows = torch.randint(size, (128,))
    guess = model(time[rows], station[rows], weather[rows])
    loss = nn.functional.mse_loss(guess, hires[rows])
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
    optimizer.step()
    if step % 31 == 0:
        print("step", step, "loss", loss.item())
