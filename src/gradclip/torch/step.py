"""What a step is given, and what is decided in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeAlias

from torch import Tensor

__all__ = ["Applied", "Carry", "Decision", "GradientList", "Gradients", "OfParameters", "State", "StepInputs"]

State: TypeAlias = Mapping[str, Tensor]
Carry: TypeAlias = Callable[[float | Tensor, Tensor | None], bool]
"""Take over one factor for all gradients, and the skip where they are not finite; False where that cannot be."""
Applied: TypeAlias = tuple[Tensor, Tensor | bool]
"""The norm of every cell afterwards, and whether anything was changed."""


_grad_of = attrgetter("grad")


class Gradients(ABC):
    """The gradients of one step, which can be replaced where they cannot be changed in place."""

    @abstractmethod
    def read(self) -> list[Tensor | None]:
        """Return the gradients, None where there is none."""

    @abstractmethod
    def put(self, i: int, grad: Tensor | None) -> None:
        """Put another tensor in place of gradient i, or drop it (None)."""


class OfParameters(Gradients):
    """The ``.grad`` of each parameter."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = parameters

    def read(self) -> list[Tensor | None]:
        """See :class:`Gradients`."""
        return list(map(_grad_of, self.parameters))

    def put(self, i: int, grad: Tensor | None) -> None:
        """See :class:`Gradients`."""
        self.parameters[i].grad = grad


class GradientList(Gradients):
    """Gradients without parameters."""

    def __init__(self, grads: list[Tensor | None]) -> None:
        self.grads = grads

    def read(self) -> list[Tensor | None]:
        """See :class:`Gradients`."""
        return list(self.grads)

    def put(self, i: int, grad: Tensor | None) -> None:
        """See :class:`Gradients`."""
        self.grads[i] = grad


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
    answer: Sequence[float] | None = None
    """What the host has to know, where it has decided itself and found every norm finite."""
