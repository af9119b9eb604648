"""A GRU cell with large weights, fed with its own output for forty steps: the gradient grows with each of them.

Expects: exploding-gradient, loss-spike
Also fine: update-too-large, non-finite-gradient
"""

import torch
from torch import nn

torch.manual_seed(0)
cell = nn.GRUCell(16, 16)
for weight in (cell.weight_ih, cell.weight_hh):
    nn.init.normal_(weight, std=1.0)
optimizer = torch.optim.SGD(cell.parameters(), lr=0.02)
for step in range(150):
    state = torch.randn(32, 16)
    target = state.roll(1, 1).tanh()
    for _ in range(40):
        state = cell(state, state)
    loss = nn.functional.mse_loss(state, target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 30 == 0:
        print(step, loss.item())
