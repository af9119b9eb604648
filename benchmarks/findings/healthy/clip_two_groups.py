"""Encoder and head are clipped apart, each to a threshold of its own; together they are the whole model."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.ModuleDict({"rnn": nn.GRU(4, 32, batch_first=True), "head": nn.Linear(32, 2)})
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for step in range(150):
    x = torch.randn(16, 15, 4)
    hidden, _ = model["rnn"](x)
    loss = nn.functional.cross_entropy(model["head"](hidden[:, -1]), (x[:, -2:].sum((1, 2)) > 0).long())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model["rnn"].parameters(), 1.0)
    torch.nn.utils.clip_grad_norm_(model["head"].parameters(), 2.0)
    optimizer.step()
    if step % 30 == 0:
        print(step, loss.item())
