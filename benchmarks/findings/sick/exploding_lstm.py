"""An LSTM with recurrent weights near 1 forecasts a running sum over 60 steps, without clipping.

Expects: exploding-gradient, loss-spike
Also fine: update-too-large, non-finite-gradient, dead-layer, vanishing-in-depth
"""

import torch
from torch import nn

torch.manual_seed(0)
lstm = nn.LSTM(1, 32, batch_first=True)
head = nn.Linear(32, 1)
nn.init.normal_(lstm.weight_hh_l0)
optimizer = torch.optim.SGD([*lstm.parameters(), *head.parameters()], lr=0.1)
for step in range(120):
    x = torch.rand(16, 60, 1)
    hidden, _ = lstm(x)
    loss = (head(hidden).squeeze(2) - x.squeeze(2).cumsum(1)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(step, loss.item())
