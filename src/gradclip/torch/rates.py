"""How far one unit of gradient moves a parameter, as far as an optimizer's settings tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["effective_rates"]


def effective_rates(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> list[float]:
    """Return for each parameter what a steady gradient is multiplied by in a step.

    For SGD that is ``lr``, and with momentum m ``lr (1 - dampening) / (1 - m)``, for the buffer adds up that much of it. An
    optimizer that divides by the gradient's own size (Adam and its family, RMSprop, Adagrad, LBFGS) moves as far whatever the
    gradient's scale: 0 says that no limit on the gradient limits its step.

    >>> p = torch.nn.Parameter(torch.zeros(1))
    >>> effective_rates(torch.optim.SGD([p], lr=0.1, momentum=0.9), [p])
    [1.0]
    >>> effective_rates(torch.optim.Adam([p], lr=0.1), [p])
    [0.0]
    """
    rates: dict[int, float] = {}
    for group in optimizer.param_groups:
        rates |= dict.fromkeys(map(id, group["params"]), _rate(group))
    return list(map(rates.__getitem__, map(id, parameters)))


_SCALE_FREE = frozenset(("betas", "alpha", "lr_decay", "rho", "max_iter", "etas", "eps"))
"""Settings of the optimizers that divide by the gradient's own size."""


def _rate(group: dict[str, Any]) -> float:
    if not _SCALE_FREE.isdisjoint(group):
        return 0.0
    momentum = float(group.get("momentum", 0.0))
    share = 1 - float(group.get("dampening", 0.0)) if momentum else 1.0
    return round(float(group["lr"]) * share / (1 - momentum), 15) if momentum < 1 else float("inf")
