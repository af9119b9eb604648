"""Small trainings on clusters of points, sick and healthy, for the checks to look at."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import gradclip
from tests.diagnosis.support import recorded_training

WIDTH, CLASSES, BATCH = 32, 6, 32


def net(depth: int, activation: Callable[[], nn.Module], *, start=None, norm=None) -> nn.Sequential:
    """Layers of one width, and one to the classes."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        linear = nn.Linear(WIDTH, WIDTH)
        if start:
            start(linear.weight)
            nn.init.zeros_(linear.bias)
        layers += [*([norm(WIDTH)] if norm else []), linear, activation()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


def he(weight):
    nn.init.kaiming_normal_(weight, nonlinearity="relu")


def xavier(weight):
    nn.init.xavier_normal_(weight, nn.init.calculate_gain("tanh"))


def batches(seed=0):
    """Points around the centres of their classes, for ever."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, WIDTH, generator=generator)
    while True:
        y = torch.randint(CLASSES, (BATCH,), generator=generator)
        yield centres[y] + torch.randn(BATCH, WIDTH, generator=generator), y


def trained(
    folder: Path, make, *, adam=False, rate=0.05, steps=120, clip=None, recipe=None, before=None, data=batches, noisy=None
) -> Path:
    """Record the training of a net; ``clip(model)`` runs before each step, ``before(model, step)`` before each batch.

    ``recipe`` is attached to the optimizer, ``noisy(step)`` multiplies the loss.
    """

    def train():
        model = make()
        optimizer = (torch.optim.Adam if adam else torch.optim.SGD)(model.parameters(), lr=rate)
        if recipe:
            gradclip.attach(optimizer, recipe)
        for step, (x, y) in enumerate(islice(data(), steps)):
            if before:
                before(model, step)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
            (loss * noisy(step) if noisy else loss).backward()
            if clip:
                clip(model)
            optimizer.step()

    return recorded_training(folder, train)
