"""A GRU learns the parity of ever longer bit strings: with each new length the loss steps up and falls again."""

import torch
from torch import nn

torch.manual_seed(32)
gru, out = nn.GRU(1, 24, batch_first=True), nn.Linear(24, 1)
parameters = [*gru.parameters(), *out.parameters()]
optimizer = torch.optim.Adam(parameters, lr=0.01)
step = 0
for length in (2, 3, 4, 6):
    for _ in range(120):
        bits = torch.randint(2, (48, length, 1)).float()
        logit = out(gru(bits)[0][:, -1]).squeeze(1)
        loss = nn.functional.binary_cross_entropy_with_logits(logit, bits.sum((1, 2)) % 2)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        step += 1
        if step % 30 == 0:
            print(length, step, loss.item())
