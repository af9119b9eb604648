"""The threshold axis: how big may a block be?

A threshold rule is two pure functions, ``init(norms) -> state`` and ``limits(norms, state, context) -> (limits, state)``,
where ``norms`` has one entry a block and ``state`` is a flat dict of arrays. The rules here keep no state; a rule that
learns from history sets ``stateful`` and uses the same two functions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from gradclip._arrays import Array, namespace

__all__ = ["Bounds", "Constant", "Context", "Relative", "Schedule", "Threshold", "as_threshold"]

State: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True)
class Context:
    """What a rule may know besides the norms: the step (from 0), and each block's weight norm and learning rate.

    The step is a Python number, or an array where a compiled loop counts it.
    """

    step: int | Array = 0
    weight_norms: Array | None = None
    lr: Array | None = None


class Threshold(ABC):
    """Say how big each block may be."""

    needs_weights: ClassVar[bool] = False
    """The rule reads ``context.weight_norms``."""
    needs_lr: ClassVar[bool] = False
    """The rule reads ``context.lr``, so it needs the optimizer."""
    stateful: ClassVar[bool] = False
    """The rule keeps a history, so it needs a ``Clipper`` or ``attach``."""
    uniform: ClassVar[bool] = False
    """One limit for every block, known before anything is measured."""
    couples: ClassVar[bool] = False
    """The limit of a block depends on the norms of other blocks too, so it cannot be known from that block alone."""

    @property
    def blind(self) -> bool:
        """The limits do not depend on the norms, so they are known before anything is measured; a uniform one always is."""
        return self.uniform

    def init(self, norms: Array) -> State:
        """Return the state before the first step, on the device and in the library of ``norms``."""
        return {}

    @abstractmethod
    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        """Return the limit of each block (or one for all) and the next state. Never called with a NaN or Inf."""

    def bounds(self, norms: Array, state: State, context: Context) -> tuple[Array | float, Array | float, State]:
        """Return the lowest and highest value of each element, for blocks of one element."""
        limits, state = self.limits(norms, state, context)
        return -limits, limits, state


@dataclass(frozen=True)
class Constant(Threshold):
    """The same limit at every step; a tuple gives each group its own. ``inf`` measures only.

    Raises:
        ValueError: a value is zero, negative or NaN.
    """

    value: float | tuple[float, ...]
    uniform: ClassVar[bool] = True

    def __post_init__(self) -> None:
        each = self.value if isinstance(self.value, Sequence) else (self.value,)
        values = tuple(positive(value, "a threshold") for value in each)
        if not values:
            raise ValueError("a threshold for each group needs at least one value")
        object.__setattr__(self, "value", values if len(values) > 1 else values[0])

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
    uniform: ClassVar[bool] = True

    def __post_init__(self) -> None:
        low, high = number(self.low, "the lower bound"), number(self.high, "the upper bound")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        if low > high:
            raise ValueError(f"the lower bound {low:g} is above the upper bound {high:g}: write value({high:g}, {low:g})")
        if low > 0 or high < 0 or low == high:
            raise ValueError(
                f"the interval [{low:g}, {high:g}] must hold 0 and more, or clipping would turn gradients around: "
                "write value(-0.5, 0.5), value(0, 1) or value(0.5)"
            )

    @property
    def symmetric(self) -> bool:
        """The interval is as wide below 0 as above."""
        return -self.low == self.high

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
    uniform: ClassVar[bool] = True

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
    needs_weights: ClassVar[bool] = True
    blind: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", positive(self.ratio, "the ratio to the weights' norm"))
        object.__setattr__(self, "floor", positive(self.floor, "the floor of the weights' norm"))

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        weights = context.weight_norms
        if weights is None:
            raise ValueError("a threshold relative to the weights needs the weights: pass parameters, not gradients")
        xp = namespace(weights)
        return self.ratio * xp.where(weights < self.floor, xp.ones_like(weights) * self.floor, weights), state


def as_threshold(threshold: object) -> Threshold:
    """Read a threshold from a number, a sequence of numbers (one a group) or a callable of the step.

    >>> as_threshold(1), as_threshold([1, 0.5])
    (Constant(value=1.0), Constant(value=(1.0, 0.5)))
    """
    if isinstance(threshold, Threshold):
        return threshold
    if callable(threshold):
        return Schedule(threshold)
    if isinstance(threshold, Sequence) and not isinstance(threshold, str):
        return Constant(tuple(threshold))
    return Constant(positive(threshold, "a threshold"))


def positive(value: object, what: str) -> float:
    """Return ``value`` as a float > 0 (``inf`` included), or raise saying what it should have been."""
    result = number(value, what)
    if not result > 0:
        raise ValueError(f"{what} must be > 0, not {result:g}: write a positive number, or inf to measure without clipping")
    return result


def number(value: object, what: str) -> float:
    """Return ``value`` as a float that is not NaN; read NumPy scalars and 0-dim arrays, refuse words and booleans."""
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"{what} must be a number, not {type(value).__name__} ({value!r})")
    result = float(value)
    if math.isnan(result):
        raise ValueError(f"{what} must be a number, not NaN")
    return result
