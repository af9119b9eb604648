"""A ReLU recurrent net whose recurrent matrix stretches every step by 1.5, over 50 steps, without clipping.

Expects: exploding-gradient, non-finite-gradient
Also fine: loss-spike, update-too-large, dead-layer
"""

import torch
from torch import nn

torch.manual_seed(1)
rnn = nn.RNN(4, 32, nonlinearity="relu", batch_first=True)
head = nn.Linear(32, 1)
nn.init.orthogonal_(rnn.weight_hh_l0, gain=1.5)
optimizer = torch.optim.SGD([*rnn.parameters(), *head.parameters()], lr=1e-4)
for step in range(100):
    x = torch.randn(16, 50, 4)
    hidden, _ = rnn(x)
    loss = nn.functional.mse_loss(head(hidden[:, -1]), x.sum((1, 2)).unsqueeze(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(step, loss.item())
