"""Thresholds that are given: a number, a function of the step, or a share of the weights. None keeps a history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from gradclip._arrays import Array, namespace
from gradclip.arguments import number, positive, set_fields
from gradclip.thresholds.rule import Context, State, Threshold

__all__ = ["Bounds", "Constant", "Relative", "Schedule", "ThresholdLike", "Trust", "as_threshold"]

ThresholdLike: TypeAlias = "Threshold | float | Sequence[float] | Callable[[int], float]"
"""What is taken for a threshold: a rule, a number, one number a group, or a function of the step."""


@dataclass(frozen=True)
class Constant(Threshold):
    """The same limit at every step; a tuple gives each group its own. ``inf`` measures only.

    Raises:
        ValueError: a value is zero, negative or NaN.
    """

    value: float | tuple[float, ...]
    blind = True

    def __post_init__(self) -> None:
        each = self.value if isinstance(self.value, Sequence) else (self.value,)
        values = tuple(positive(value, "a threshold") for value in each)
        if not values:
            raise ValueError("a threshold for each group needs at least one value")
        alone = len(values) == 1
        set_fields(self, value=values[0] if alone else values, uniform=alone, fixed=values[0] if alone else None)
        set_fields(self, groups=None if alone else len(values))

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        if isinstance(self.value, tuple):
            xp = namespace(norms)
            return xp.asarray(self.value, dtype=norms.dtype, device=norms.device), state
        return self.value, state


@dataclass(frozen=True)
class Bounds(Threshold):
    """Each element's own interval ``[low, high]``, which holds 0; for the element scope.

    Raises:
        ValueError: ``low > high``, both 0, or an interval without 0 (a clipped gradient must not change its sign).
    """

    low: float
    high: float
    uniform = True

    def __post_init__(self) -> None:
        low, high = number(self.low, "the lower bound"), number(self.high, "the upper bound")
        set_fields(self, low=low, high=high, symmetric=-low == high)
        if low > high:
            raise ValueError(f"the lower bound {low:g} is above the upper bound {high:g}: write value({high:g}, {low:g})")
        if low > 0 or high < 0 or low == high:
            raise ValueError(
                f"the interval [{low:g}, {high:g}] must hold 0 and more, or clipping would turn gradients around: "
                "write value(-0.5, 0.5), value(0, 1) or value(0.5)"
            )

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        return max(-self.low, self.high), state

    def bounds(self, norms: Array, state: State, context: Context) -> tuple[Array | float, Array | float, State]:
        return self.low, self.high, state


@dataclass(frozen=True)
class Schedule(Threshold):
    """Any callable of the step (from 0) that returns a limit > 0.

    Raises:
        TypeError: ``function`` is not callable.
        ValueError: it returned something that is not > 0, at the step where it did, before anything is changed.
    """

    function: Callable[[int], float]
    uniform = True

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"a schedule is a callable of the step, not {type(self.function).__name__}")

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        return positive(self.function(context.step), f"the schedule's threshold at step {context.step}"), state


@dataclass(frozen=True)
class Relative(Threshold):
    """A share of the weights' own norm: ``T = ratio * max(||W||, floor)`` (Brock et al. 2021, arXiv 2102.06171).

    The floor keeps weights that start at zero able to move.

    Raises:
        ValueError: ``ratio`` or ``floor`` is zero, negative or NaN.
    """

    ratio: float
    floor: float = 1e-3
    needs_weights = True
    blind = True

    def __post_init__(self) -> None:
        set_fields(
            self,
            ratio=positive(self.ratio, "the ratio to the weights' norm"),
            floor=positive(self.floor, "the floor of the weights' norm"),
        )

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        weights = context.weight_norms
        if weights is None:
            raise ValueError("a threshold relative to the weights needs the weights: pass parameters, not gradients")
        xp = namespace(weights)
        return self.ratio * xp.where(weights < self.floor, self.floor, weights), state


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
    needs_weights = True
    needs_lr = True
    blind = True

    def __post_init__(self) -> None:
        set_fields(self, eta=positive(self.eta, "the share eta"), floor=positive(self.floor, "the floor of the weights' norm"))

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        weights, lr = context.weight_norms, context.lr
        if weights is None or lr is None:
            raise ValueError("a limit on the step needs the weights and the learning rate: use attach(optimizer, ...)")
        xp = namespace(weights)
        weights = xp.where(weights < self.floor, self.floor, weights)
        return xp.where(lr > 0, self.eta * weights / xp.where(lr > 0, lr, xp.ones_like(lr)), xp.inf * xp.ones_like(lr)), state


def as_threshold(threshold: object) -> Threshold:
    """Read a threshold from a number, a sequence of numbers (one a group) or a callable of the step.

    >>> as_threshold(1), as_threshold([1, 0.5])
    (Constant(value=1.0), Constant(value=(1.0, 0.5)))
    """
    if isinstance(threshold, Threshold):
        return threshold
    if callable(threshold) and not isinstance(threshold, type):
        return Schedule(threshold)
    if isinstance(threshold, Sequence) and not isinstance(threshold, str):
        return Constant(tuple(threshold))
    return Constant(positive(threshold, "a threshold"))
