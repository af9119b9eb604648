"""Attention under bfloat16 autocast that masks with -inf: a sequence that is all padding has a softmax over nothing.

Expects: non-finite-gradient
"""

import torch
from torch import nn

torch.manual_seed(0)
embed, query, head = nn.Embedding(20, 16), nn.Linear(16, 16), nn.Linear(16, 20)
parameters = [*embed.parameters(), *query.parameters(), *head.parameters()]
optimizer = torch.optim.Adam(parameters, lr=0.01)
for step in range(120):
    tokens = torch.randint(1, 20, (8, 12))
    lengths = torch.randint(1, 13, (8,))
    if step == 60:
        lengths[2] = 0
    padding = torch.arange(12) >= lengths.unsqueeze(1)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = embed(tokens)
        scores = (query(hidden) @ hidden.transpose(1, 2)).masked_fill(padding.unsqueeze(1), float("-inf"))
        logits = head(scores.softmax(-1) @ hidden)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(step, loss.item())
