"""A recurrent classifier that clips its head alone; the recurrent weights, the ones that explode, go unclipped.

Expects: clip-wrong-parameters
"""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.ModuleDict({"rnn": nn.RNN(4, 32, batch_first=True), "head": nn.Linear(32, 2)})
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
for step in range(200):
    x = torch.randn(16, 20, 4)
    hidden, _ = model["rnn"](x)
    loss = nn.functional.cross_entropy(model["head"](hidden[:, -1]), (x[:, -3:].sum((1, 2)) > 0).long())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model["head"].parameters(), 1.0)
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
