"""A tanh recurrent net learns the adding problem at a learning rate that walks it into the chaotic regime.

Expects: exploding-gradient
Also fine: loss-spike, update-too-large, dead-layer, vanishing-in-depth, non-finite-gradient
"""

import torch
from torch import nn

torch.manual_seed(0)
rnn = nn.RNN(2, 64, batch_first=True)
head = nn.Linear(64, 1)
nn.init.normal_(rnn.weight_hh_l0, std=1.2 / 8)
optimizer = torch.optim.SGD([*rnn.parameters(), *head.parameters()], lr=0.05)
for step in range(200):
    values, marks = torch.rand(16, 60), torch.zeros(16, 60)
    marks[torch.arange(16), torch.randint(0, 30, (16,))] = 1
    marks[torch.arange(16), torch.randint(30, 60, (16,))] = 1
    hidden, _ = rnn(torch.stack([values, marks], -1))
    loss = (head(hidden[:, -1]).squeeze(1) - (values * marks).sum(1)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
