"""A bfloat16 net with float32 master weights kept by hand, a static loss scale, and clipping of the master gradients."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)).to(torch.bfloat16)
master = [p.detach().clone().float().requires_grad_() for p in model.parameters()]
optimizer = torch.optim.SGD(master, lr=0.05)
SCALE = 1024.0
x = torch.randn(256, 4)
y = x.sum(1, keepdim=True)
for _ in range(150):
    batch = torch.randint(0, len(x), (32,))
    model.zero_grad()
    loss = (model(x[batch].bfloat16()).float() - y[batch]).square().mean()
    (loss * SCALE).backward()
    for weight, half in zip(master, model.parameters(), strict=True):
        weight.grad = half.grad.float() / SCALE
    nn.utils.clip_grad_norm_(master, 2.0)
    optimizer.step()
    for weight, half in zip(master, model.parameters(), strict=True):
        half.data.copy_(weight.data)
print(loss.item())
