"""Trains until it is stopped; prints each step when it is done. --exit: leaves by os._exit."""

import os
import sys
import time

import torch

torch.manual_seed(0)
weight = torch.ones(3, requires_grad=True)
optimizer = torch.optim.SGD([weight], lr=1e-3)
for step in range(100_000):
    optimizer.zero_grad()
    (weight * weight).sum().backward()
    optimizer.step()
    print(step, flush=True)
    if "--exit" in sys.argv and step == 200:
        time.sleep(2.5)
        os._exit(7)
    time.sleep(0.002)
