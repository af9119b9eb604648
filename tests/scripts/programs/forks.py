"""Children by os.fork and by multiprocessing, which train and exit as they please: runs of their own beside the parent's."""

import multiprocessing
import os
import sys

import torch
from torch import nn
from truth import Truth, data, norm


def train(steps, truth=None):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        x, y = data()
        loss = (model(x) - y).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        if truth is not None:
            truth.step(loss=loss.item(), norm=norm(model.parameters()))
        optimizer.step()
    return loss.item()


if __name__ == "__main__":
    truth = Truth()
    print(repr(train(4, truth)), flush=True)
    child = os.fork()
    if child == 0:
        print("child", repr(train(7)), flush=True)
        sys.exit(0)
    print("left with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        print("pool", pool.map(train, [3]), flush=True)
    print(repr(train(5, None)))
    truth.save()
