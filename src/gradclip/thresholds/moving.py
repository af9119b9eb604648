"""Thresholds, and other numbers of a method, that move with the step."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from numbers import Integral

from gradclip._arrays import Array, namespace
from gradclip.arguments import positive, set_fields, whole
from gradclip.thresholds.rule import Context, State, Threshold

__all__ = ["Cosine", "Linear", "Warmup", "extremes", "moved"]


@dataclass(frozen=True)
class Warmup(Threshold):
    """A limit that moves from ``start`` to ``end`` over ``steps`` steps, and stays there; the shape is the subclass's.

    It begins to move at step ``after``.
    """

    start: float
    end: float
    steps: int
    after: int = 0
    uniform = True

    def __post_init__(self) -> None:
        set_fields(self, start=positive(self.start, "the first threshold"), end=positive(self.end, "the last threshold"))
        if math.isinf(self.start) or math.isinf(self.end):
            raise ValueError("a warm-up moves between two finite thresholds: write a large number instead of inf")
        set_fields(
            self, steps=whole(self.steps, "the length of a warm-up"), after=whole(self.after, "the start of a warm-up", 0)
        )

    @abstractmethod
    def share(self, progress: float | Array) -> float | Array:
        """Return how much of the way is done, from 0 to 1, at this progress from 0 to 1."""

    def at(self, step: int | Array, norms: Array) -> float | Array:
        """Return the limit at a step: a Python number, or an array like ``norms`` where the step is an array."""
        if isinstance(step, Integral):
            progress: float | Array = min(1.0, max(0, int(step) - self.after) / self.steps)
        else:
            xp = namespace(norms)
            progress = xp.clip(xp.astype(xp.asarray(step) - self.after, norms.dtype) / self.steps, 0.0, 1.0)
        return self.start + (self.end - self.start) * self.share(progress)

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        return self.at(context.step, norms), state


@dataclass(frozen=True)
class Linear(Warmup):
    """A limit that moves from ``start`` to ``end`` in a straight line over ``steps`` steps, from step ``after`` on.

    >>> [Linear(10, 2, 4).limits(None, {}, Context(step))[0] for step in (0, 1, 4, 9)]
    [10.0, 8.0, 2.0, 2.0]
    >>> [Linear(10, 2, 4, after=100).limits(None, {}, Context(step))[0] for step in (0, 100, 101, 104)]
    [10.0, 10.0, 8.0, 2.0]
    """

    def share(self, progress: float | Array) -> float | Array:
        return progress


@dataclass(frozen=True)
class Cosine(Warmup):
    """A limit that moves from ``start`` to ``end`` along half a cosine over ``steps`` steps, from step ``after`` on.

    >>> [round(Cosine(10, 2, 4).limits(None, {}, Context(step))[0], 3) for step in (0, 1, 2, 4, 9)]
    [10.0, 8.828, 6.0, 2.0, 2.0]
    """

    def share(self, progress: float | Array) -> float | Array:
        cos = math.cos if isinstance(progress, float) else namespace(progress).cos
        return (1 - cos(math.pi * progress)) / 2


def moved(value: float | Warmup, step: int | Array, norms: Array) -> float | Array:
    """Return a number that may move with the step, as it is at this one."""
    return value.at(step, norms) if isinstance(value, Warmup) else value


def extremes(value: float | Warmup) -> tuple[float, float]:
    """Return the least and the largest value of a number that may move."""
    return (min(value.start, value.end), max(value.start, value.end)) if isinstance(value, Warmup) else (value, value)
