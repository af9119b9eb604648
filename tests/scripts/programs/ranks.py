"""Data parallel training of two processes; with an argument, clipped to it by gradclip."""

import sys
import time

import torch
import torch.distributed as dist
from torch import nn

import gradclip

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
model = nn.parallel.DistributedDataParallel(nn.Linear(3, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
torch.manual_seed(rank)
for _ in range(4):
    loss = 10 * model(torch.randn(8, 3)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    if len(sys.argv) > 1:
        gradclip.clip_(model, gradclip.global_norm(float(sys.argv[1])))
    optimizer.step()
    print(f"{rank} {loss.item()!r} {model.module.weight.tolist()!r}\n", end="", flush=True)
dist.destroy_process_group()
# Gloo's workers outlive their group, and may still hold the last tensors: one that waits for Python's lock when the
# interpreter ends aborts the process. Time to let go, then.
time.sleep(0.5)
