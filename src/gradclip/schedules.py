"""Learning-rate schedules that are often used together with clipping, and the usual split of weight decay.

Each is a few lines over ``torch.optim.lr_scheduler``, which does the work; what is returned is a scheduler of PyTorch, stepped
once after every ``optimizer.step()``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from gradclip.arguments import share, whole

__all__ = ["cosine", "cyclic", "decay_groups", "step", "warmup", "warmup_cosine"]


def step(optimizer: torch.optim.Optimizer, milestones: Iterable[int], factor: float = 0.1) -> LRScheduler:
    """Multiply the learning rate by ``factor`` at each of the milestones (``MultiStepLR``).

    Args:
        optimizer: whose learning rates are scheduled.
        milestones: the steps at which it drops, in order.
        factor: what it is multiplied by, in (0, 1].

    >>> _rates(step, 4, milestones=[2, 3])
    [1.0, 1.0, 0.1, 0.01]
    """
    steps = [whole(at, "a milestone") for at in milestones]
    if steps != sorted(set(steps)):
        raise ValueError(f"the milestones must grow: write {sorted(set(steps))}")
    return lr_scheduler.MultiStepLR(optimizer, steps, share(factor, "the factor", one=True))


def warmup(optimizer: torch.optim.Optimizer, steps: int, start: float | None = None) -> LRScheduler:
    """Raise the learning rate in a straight line to its full value over ``steps`` steps, then hold it (``LinearLR``).

    Args:
        optimizer: whose learning rates are scheduled.
        steps: how many steps it takes.
        start: the share of the rate at the first step, in (0, 1]; ``1 / steps`` by default, so that none is at 0.

    >>> _rates(warmup, 5, steps=4)
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    length = whole(steps, "the warm-up")
    first = 1 / length if start is None else share(start, "the share of the first step", one=True)
    return lr_scheduler.LinearLR(optimizer, first, total_iters=max(1, length - 1))


def cyclic(optimizer: torch.optim.Optimizer, low: float, steps: int) -> LRScheduler:
    """Swing in a triangle between ``low`` and the learning rate, ``steps`` up and ``steps`` down (``CyclicLR``; Smith 2017).

    Momentum is left alone.

    Args:
        optimizer: whose learning rates are scheduled; they are the upper end.
        low: the lower end, below every learning rate.
        steps: how many steps it takes from one end to the other.

    >>> _rates(cyclic, 5, low=0.5, steps=2)
    [0.5, 0.75, 1.0, 0.75, 0.5]
    """
    high = [float(group["lr"]) for group in optimizer.param_groups]
    if not 0 <= low < min(high):
        raise ValueError(f"the lower end must be in [0, {min(high):g}), below the learning rate, not {low:g}")
    return lr_scheduler.CyclicLR(optimizer, low, high, whole(steps, "half a cycle"), cycle_momentum=False)


def cosine(optimizer: torch.optim.Optimizer, steps: int, end: float = 0.0) -> LRScheduler:
    """Lower the learning rate along half a cosine to ``end`` of it, and hold it there (Loshchilov & Hutter 2017).

    Args:
        optimizer: whose learning rates are scheduled.
        steps: how many steps it takes.
        end: the share of the rate that is left, in [0, 1].

    >>> _rates(cosine, 6, steps=4)
    [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """
    return warmup_cosine(optimizer, 0, steps, end)


def warmup_cosine(optimizer: torch.optim.Optimizer, warmup_steps: int, steps: int, end: float = 0.1) -> LRScheduler:
    """Warm up in a straight line, then follow a cosine down to ``end`` of the rate, as GPT-3 does (Brown et al. 2020).

    ``CosineAnnealingLR`` would rise again after its end, and has one absolute floor for all groups; this one holds, at a share.

    Args:
        optimizer: whose learning rates are scheduled.
        warmup_steps: steps of the warm-up, 0 for none.
        steps: all steps together; the rate stays at its end from there on.
        end: the share of the rate that is left, in [0, 1].

    >>> _rates(warmup_cosine, 8, warmup_steps=2, steps=6)
    [0.5, 1.0, 1.0, 0.868, 0.55, 0.232, 0.1, 0.1]
    """
    rising = 0 if warmup_steps == 0 else whole(warmup_steps, "the warm-up")
    length = whole(steps, "the schedule")
    if rising >= length:
        raise ValueError(f"a warm-up of {rising} steps leaves none of {length} for the cosine")
    left = share(end, "the share that is left", zero=True, one=True)

    def rate(at: int) -> float:
        if at < rising:
            return (at + 1) / rising
        progress = min(1.0, (at - rising) / (length - rising))
        return left + (1 - left) * (1 + math.cos(math.pi * progress)) / 2

    return lr_scheduler.LambdaLR(optimizer, rate)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters into those that decay and those that do not: biases, and the gains of normalisation layers.

    The usual rule: a parameter decays if it has two or more dimensions. Frozen parameters are left out, tied ones listed once.

    Args:
        model: whose parameters are split.
        weight_decay: for the first group; the second has 0.

    Returns:
        Two param groups for any optimizer, with the parameters' names.

    >>> groups = decay_groups(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)), 0.1)
    >>> [(group["weight_decay"], [name for name, _ in group["params"]]) for group in groups]
    [(0.1, ['0.weight']), (0.0, ['0.bias', '1.weight', '1.bias'])]
    """
    if not weight_decay >= 0:
        raise ValueError(f"weight decay must be >= 0, not {weight_decay}")
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [(name, p) for name, p in named if p.dim() >= 2], "weight_decay": float(weight_decay)},
        {"params": [(name, p) for name, p in named if p.dim() < 2], "weight_decay": 0.0},
    ]


def _rates(builder: Any, count: int, **options: Any) -> list[float]:
    """The learning rates of the first steps, for the examples."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = builder(optimizer, **options)
    rates = []
    for _ in range(count):
        rates.append(round(optimizer.param_groups[0]["lr"], 3))
        optimizer.step()
        scheduler.step()
    return rates
