"""A recurrent net with a threshold of 0.01 attached to its optimizer; its norms are around 1 from first to last.

Expects: always-clipping
Also fine: update-too-small
"""

import torch
from torch import nn

import gradclip

torch.manual_seed(0)
rnn, head = nn.GRU(3, 24, batch_first=True), nn.Linear(24, 1)
optimizer = torch.optim.SGD([*rnn.parameters(), *head.parameters()], lr=0.05, momentum=0.9)
gradclip.attach(optimizer, gradclip.global_norm(0.01))
for step in range(200):
    x = torch.randn(16, 20, 3)
    hidden, _ = rnn(x)
    loss = nn.functional.mse_loss(head(hidden[:, -1]).squeeze(1), 2 + x[:, -3:].sum((1, 2)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
