"""A compiled model, and in the second half a compiled step with the clipping in it."""

import torch
from torch import nn
from truth import Truth, data, norm

torch.manual_seed(0)
truth = Truth()
model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
fast = torch.compile(model, backend="aot_eager")
optimizer = torch.optim.SGD(fast.parameters(), lr=0.05)


@torch.compile(backend="eager", fullgraph=True)
def scaled(grads, factor):
    return [g * factor for g in grads]


for _ in range(6):
    x, y = data()
    optimizer.zero_grad()
    loss = (fast(x) - y).pow(2).mean()
    loss.backward()
    for p, g in zip(model.parameters(), scaled([p.grad for p in model.parameters()], 0.5), strict=True):
        p.grad = g
    before = norm(model.parameters())
    torch.nn.utils.clip_grad_norm_(fast.parameters(), 0.1)
    truth.step(loss=loss.item(), norm=before, clipped_norm=norm(model.parameters()), threshold=0.1)
    optimizer.step()
    print(repr(loss.item()))
truth.save()
