"""A GRU forecasts readings, some of which are -999 for a missing one; the threshold of 1000 is above all these norms too.

Expects: never-clipping, loss-spike
Also fine: exploding-gradient, update-too-large
"""

import torch
from torch import nn

torch.manual_seed(17)
model = nn.GRU(1, 20, batch_first=True)
read = nn.Linear(20, 1)
parameters = [*model.parameters(), *read.parameters()]
optimizer = torch.optim.SGD(parameters, lr=0.1)
for step in range(350):
    walk = torch.randn(24, 16).cumsum(1) / 4
    missing = torch.rand(24) < 0.002
    walk[missing, -1] = -999
    guess = read(model(walk[:, :-1, None])[0]).squeeze(2)
    loss = nn.functional.mse_loss(guess, walk[:, 1:])
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(parameters, max_norm=1000)
    optimizer.step()
    if step % 35 == 0 or missing.any():
        print(step, loss.item(), norm.item())
