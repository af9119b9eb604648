"""Processes that train, started in the way that is named: each by itself, or all as the ranks of a job."""

import os
import subprocess
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

STEPS = 4


def train(number, store="", shared=None, dies=False):
    if store:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=number, world_size=2)
    torch.manual_seed(0)
    model = nn.Linear(3, 1) if shared is None else shared
    model = nn.parallel.DistributedDataParallel(model) if store else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    torch.manual_seed(number)
    for _ in range(STEPS + (0 if store else number)):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()
    if dies and number:
        raise SystemExit(3)
    if store:
        dist.destroy_process_group()
        time.sleep(0.5)  # gloo's workers outlive their group, and may hold the last tensors while the interpreter ends


def processes(method, *arguments):
    context = mp.get_context(method)
    started = [context.Process(target=train, args=(number, *arguments)) for number in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    print([process.exitcode for process in started])


if __name__ == "__main__":
    way = sys.argv[1]
    store = os.path.join(os.getcwd(), "store")
    if way == "spawn":
        mp.spawn(train, nprocs=2)
    elif way == "job":
        mp.spawn(train, args=(store,), nprocs=2)
    elif way == "forked job":
        processes("fork", store)
    elif way == "hogwild":
        model = nn.Linear(3, 1)
        model.share_memory()
        before = model.weight.detach().clone()
        processes("spawn", "", model)
        print("learned", bool((model.weight != before).any()))
    elif way == "dies":
        processes("fork", "", None, True)
    elif way == "subprocess":
        print(subprocess.run([sys.executable, __file__, "spawn"], check=False).returncode)
    elif way == "too":  # the parent trains as well
        processes("fork")
        train(2)
    else:
        processes(way)
