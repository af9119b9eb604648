"""What is done with a parameter once its gradient is clipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from gradclip.errors import TargetError, listed
from gradclip.torch.in_backward.one_by_one import Rates
from gradclip.torch.rates import effective_rates
from gradclip.torch.targets import Target

__all__ = ["Then", "read"]

Then: TypeAlias = Callable[[Tensor], object] | Mapping[Tensor, torch.optim.Optimizer] | None
"""A function of the parameter, or the optimizer of each, which is stepped and the gradient freed."""


def read(then: Then, target: Target) -> tuple[Callable[[Tensor], object] | None, Rates]:
    """Return what is done with a clipped gradient, and the learning rates if there are optimizers to tell them.

    Raises:
        TypeError: it is neither a function nor optimizers.
        TargetError: a parameter has no optimizer.
    """
    if then is None or callable(then):
        return then, None
    if not isinstance(then, Mapping):
        raise TypeError(
            f"then is a function of a parameter, or a dict {{parameter: its optimizer}}, not {type(then).__name__}: "
            "write {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}"
        )
    missing = [n for n, p in zip(target.names, target.parameters, strict=True) if p.requires_grad and p not in then]
    if missing:
        raise TargetError(f"no optimizer for {listed(missing)}: give every parameter its own, or freeze it")

    def step(parameter: Tensor) -> None:
        if parameter not in then:
            raise TargetError("a parameter that was thawed has no optimizer: give it one before")
        then[parameter].step()
        then[parameter].zero_grad()

    def rate(i: int) -> float:
        parameter = target.parameters[i]
        return effective_rates(then[parameter], [parameter])[0] if parameter in then else 0.0

    return step, rate
