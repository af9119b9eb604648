"""A limit on the step itself, relative to the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gradclip._arrays import Array, namespace
from gradclip.thresholds import Context, State, Threshold, positive

__all__ = ["Trust"]


@dataclass(frozen=True)
class Trust(Threshold):
    """No step longer than a share of the weights: ``T = eta * max(||W||, floor) / lr``, the LARS and LARC family.

    You et al. 2017, arXiv 1708.03888; apex's LARC clips per tensor with eta = 0.02. ``lr`` is how far the optimizer moves a
    weight for one unit of a steady gradient: with momentum more than its ``lr``, and 0, so that nothing binds, where it
    divides by the gradient's own size (Adam). A block that mixes several has the largest, so that its step is at most
    ``eta`` of its weights whichever parameters the gradient is in. The floor lets weights that start at zero move.
    Departures: LARS scales every step to that length; both add the weight decay to the step and leave momentum out of it.

    Raises:
        ValueError: ``eta`` or ``floor`` is not > 0.
    """

    eta: float = 0.02
    floor: float = 1e-3
    needs_weights: ClassVar[bool] = True
    needs_lr: ClassVar[bool] = True
    blind: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "eta", positive(self.eta, "the share eta"))
        object.__setattr__(self, "floor", positive(self.floor, "the floor of the weights' norm"))

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        weights, lr = context.weight_norms, context.lr
        if weights is None or lr is None:
            raise ValueError("a limit on the step needs the weights and the learning rate: use attach(optimizer, ...)")
        xp = namespace(weights)
        weights = xp.where(weights < self.floor, xp.ones_like(weights) * self.floor, weights)
        return xp.where(lr > 0, self.eta * weights / xp.where(lr > 0, lr, xp.ones_like(lr)), xp.inf * xp.ones_like(lr)), state
