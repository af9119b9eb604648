"""A classifier on two ranks whose clipping ended up under the `if` of the main process, beside the logging.

Expects: ranks-disagree
Also fine: always-clipping
Ranks: 2
"""

import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group(backend="gloo")
rank = dist.get_rank()
generator = torch.Generator().manual_seed(100 + rank)
centres = torch.eye(6) * 3
torch.manual_seed(7)
net = DistributedDataParallel(nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 6)))
adam = torch.optim.AdamW(net.parameters(), lr=3e-3)
for step in range(80):
    target = torch.randint(0, 6, (24,), generator=generator)
    inputs = centres[target] + torch.randn(24, 6, generator=generator)
    loss = cross_entropy(net(inputs), target)
    loss.backward()
    if rank == 0:
        norm = nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        if step % 20 == 0:
            print(step, loss.item(), norm.item())
    adam.step()
    adam.zero_grad()
dist.destroy_process_group()
time.sleep(0.5)
