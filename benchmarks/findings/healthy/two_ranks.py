"""Data parallel training of two processes, each on its own batches: their losses differ, and their gradients do not.

Ranks: 2
"""

import time

import torch
import torch.distributed as dist
from torch import nn

dist.init_process_group("gloo")
torch.manual_seed(0)
weights = torch.randn(8, 1)
model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
torch.manual_seed(1 + dist.get_rank())
for _ in range(60):
    x = torch.randn(32, 8)
    loss = (model(x) - x @ weights).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
dist.destroy_process_group()
time.sleep(0.5)  # gloo's workers outlive their group, and may hold the last tensors while the interpreter ends
