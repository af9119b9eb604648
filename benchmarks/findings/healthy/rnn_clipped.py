"""A vanilla recurrent net with clipping against its occasional long gradients."""

import torch
from torch import nn

torch.manual_seed(0)
rnn, head = nn.RNN(3, 32, batch_first=True), nn.Linear(32, 1)
parameters = [*rnn.parameters(), *head.parameters()]
optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
for step in range(250):
    x = torch.randn(32, 20, 3)
    hidden, _ = rnn(x)
    loss = nn.functional.mse_loss(head(hidden[:, -1]).squeeze(1), x[:, -4:, 0].sum(1))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 2.0)
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
