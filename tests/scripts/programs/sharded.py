"""FSDP2 of two processes, each with its half of the batch; the truth is the same model, whole, with the whole batch.

With an argument, the second rank dies after so many steps.
"""

import json
import os
import sys
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))


whole, model = net(), net()
fully_shard(model, mesh=init_device_mesh("cpu", (size,)))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
torch.manual_seed(1)
truth = []
for step in range(6):
    if len(sys.argv) > 1 and rank == 1 and step == int(sys.argv[1]):
        time.sleep(3.0)  # what was recorded so far is written by then
        os._exit(7)
    batch = 10 * torch.randn(8, 7)
    with torch.no_grad():
        for p, shard in zip(whole.parameters(), model.parameters(), strict=True):
            p.copy_(shard.full_tensor())
    grads = torch.autograd.grad(whole(batch).square().mean(), list(whole.parameters()))
    truth.append([grad.norm().item() for grad in grads])
    model(batch.chunk(size)[rank]).square().mean().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    optimizer.zero_grad()
if rank == 0:
    with open(os.environ["TRUTH"], "w") as file:
        json.dump(truth, file)
dist.destroy_process_group()
time.sleep(0.5)  # gloo's workers outlive their group, and may hold the last tensors while the interpreter ends
