"""What a step is given, and what is decided in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

__all__ = ["Applied", "Carry", "Decision", "State", "StepInputs"]

State: TypeAlias = Mapping[str, Tensor]
Carry: TypeAlias = Callable[[float | Tensor, Tensor | None], bool]
"""Take over one factor for all gradients, and the skip where they are not finite; False where that cannot be."""


@dataclass(slots=True)
class StepInputs:
    """What a step knows besides its gradients.

    ``lrs`` is the learning rate of each parameter, where an optimizer tells; ``carry`` multiplies by one factor that all
    gradients share, in place of a pass over them.
    """

    weights: Sequence[Tensor] | None = None
    lrs: Sequence[float] | None = None
    state: State | None = None
    number: int = 0
    carry: Carry | None = None


@dataclass(slots=True)
class Decision:
    """What was measured, and what follows from it."""

    cells: Tensor
    """The norm of every cell."""
    factors: Tensor
    """Of every block; empty where elements are clamped to an interval."""
    limits: Tensor | float
    state: State
    total: Tensor | None = None
    """The norm of all gradients together, 0-dim, where they are one block."""
    bounds: tuple[float, float] | None = None
    """The interval to which elements are clamped."""
    changed: Tensor | None = None
    """Which tensors have an element that is to be changed, on any rank, where that is known."""
    after: Tensor | None = None
    """The norm of every cell afterwards, where it is known beforehand."""
    answer: Sequence[float] | None = None
    """What the host has to know, where it has decided itself and found every norm finite."""
    checked: Tensor | None = None
    """The norms that must be finite, where they are not just those of the cells: those of a block can be beyond float64."""
    at_once: bool = False
    """What has a finite norm has been changed already."""


@dataclass(slots=True)
class Applied:
    """What was done."""

    cells: Tensor
    """The norm of every cell afterwards."""
    clipped: Tensor | bool
    """Whether anything was changed."""
    total: Tensor | None = None
    """The norm of all gradients afterwards, 0-dim, where it follows from the norm before."""
