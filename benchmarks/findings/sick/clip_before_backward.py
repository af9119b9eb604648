"""The clipping comes before backward(), where there is nothing yet to clip.

Expects: clip-before-backward
"""

import torch
from torch import nn

torch.manual_seed(0)
rnn, head = nn.GRU(4, 16, batch_first=True), nn.Linear(16, 1)
parameters = [*rnn.parameters(), *head.parameters()]
optimizer = torch.optim.Adam(parameters, lr=0.01)
for step in range(150):
    x = torch.randn(16, 15, 4)
    hidden, _ = rnn(x)
    loss = nn.functional.mse_loss(head(hidden[:, -1]).squeeze(1), x[:, -1].sum(1))
    optimizer.zero_grad(set_to_none=False)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    loss.backward()
    optimizer.step()
    if step % 30 == 0:
        print(step, loss.item())
