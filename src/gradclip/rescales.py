"""The rescale axis: what happens to a block, given its norm and its limit?

Each rescale is the function ``phi`` of ``g <- g * phi(n / T)``, written on arrays of norms ``n`` and limits ``T``
in whatever array library holds them. ``T = inf`` measures only: every factor is 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from gradclip._arrays import Array, namespace
from gradclip.moving import Warmup, extremes, moved
from gradclip.thresholds import number

__all__ = ["Band", "Clamp", "Drop", "Hard", "Normalize", "Rescale", "Soft"]


class Rescale(ABC):
    """Turn norms and limits into factors."""

    formula: ClassVar[str]
    caps: ClassVar[bool] = False
    """The factor is ``min(1, T/n)``: what is within its limit is left alone, and what is not ends at it."""
    elementwise: ClassVar[bool] = False
    """Elements are limited, not blocks: by the limit of their block."""
    drops: ClassVar[bool] = False
    """A factor of 0 drops a gradient."""

    def factors(self, norms: Array, limits: Array | float, step: int | Array = 0) -> Array:
        """Return the factor of each block, shaped like ``norms``; 1 where the limit is inf, else NaN for a NaN norm."""
        xp = namespace(norms)
        if isinstance(limits, float):
            return xp.ones_like(norms) if limits == xp.inf else self.phi(norms, limits, step)
        return xp.where(limits == xp.inf, xp.ones_like(norms), self.phi(norms, limits, step))

    @abstractmethod
    def phi(self, norms: Array, limits: Array | float, step: int | Array = 0) -> Array:
        """Return ``phi(n / T)`` for limits that are finite; only a rescale that moves reads the step."""


@dataclass(frozen=True)
class Hard(Rescale):
    """Scale down to the limit what exceeds it, leave the rest: ``min(1, T/n)`` (Pascanu et al. 2013)."""

    formula: ClassVar[str] = "min(1, T/n)"
    caps: ClassVar[bool] = True

    def phi(self, norms: Array, limits: Array | float, step: int | Array = 0) -> Array:
        return _down(norms, limits)


@dataclass(frozen=True)
class Clamp(Rescale):
    """Bring the elements above the limit down to it, and leave the others of their block: the largest ends at ``min(n, T)``.

    For blocks of whole tensors, measured by their largest element; it bends the direction. (Under ``PerElement``, where a
    block is one element, ``Hard`` does this.)
    """

    formula: ClassVar[str] = "clamp(g, -T, T)"
    elementwise: ClassVar[bool] = True

    def phi(self, norms: Array, limits: Array | float, step: int | Array = 0) -> Array:
        return _down(norms, limits)


@dataclass(frozen=True)
class Normalize(Rescale):
    """Bring every block to the limit, up or down: ``T/n``; a zero block stays zero."""

    formula: ClassVar[str] = "T/n"

    def phi(self, norms: Array, limits: Array | float, step: int | Array = 0) -> Array:
        xp = namespace(norms)
        one = xp.ones_like(norms)
        return xp.where(norms == 0, one, limits / xp.where(norms == 0, one, norms))


@dataclass(frozen=True)
class Soft(Rescale):
    """Approach the limit smoothly: ``1 / (1 + n/T)`` (Zhang et al. 2020), so the result stays below ``T``."""

    formula: ClassVar[str] = "1/(1 + n/T)"

    def phi(self, norms: Array, limits: Array | float, step: int | Array = 0) -> Array:
        return 1.0 / (1.0 + norms / limits)


@dataclass(frozen=True)
class Band(Rescale):
    """Keep each norm between ``low * T`` and ``T``, scaling up by at most ``max_gain``; ``Linear`` or ``Cosine`` moves ``low``.

    Raises:
        ValueError: ``low`` outside [0, 1], or ``max_gain`` below 1.
    """

    low: float | Warmup = 0.5
    max_gain: float = 10.0
    formula: ClassVar[str] = "clip(1, low T/n, T/n)"

    def __post_init__(self) -> None:
        if not isinstance(self.low, Warmup):
            object.__setattr__(self, "low", number(self.low, "a band's low edge"))
        least, largest = extremes(self.low)
        if not 0 <= least <= largest <= 1:
            raise ValueError(f"a band's low edge is a share of the limit between 0 and 1, not {self.low}")
        if not self.max_gain >= 1:
            raise ValueError(f"max_gain must be >= 1, not {self.max_gain}")

    def phi(self, norms: Array, limits: Array | float, step: int | Array = 0) -> Array:
        xp = namespace(norms)
        one = xp.ones_like(norms)
        low = moved(self.low, step, norms)
        ratio = limits / xp.where(norms == 0, one, norms)
        gain = xp.where(low * ratio > self.max_gain, one * self.max_gain, low * ratio)
        up = (norms < low * limits) & (norms > 0)
        return xp.where(norms <= limits, xp.where(up, gain, one), ratio)


@dataclass(frozen=True)
class Drop(Rescale):
    """Set to zero what exceeds the limit: the step (or the block) is skipped."""

    formula: ClassVar[str] = "0 if n > T else 1"
    drops: ClassVar[bool] = True

    def phi(self, norms: Array, limits: Array | float, step: int | Array = 0) -> Array:
        xp = namespace(norms)
        zero: Any = norms * 0  # NaN stays NaN
        return xp.where(norms <= limits, xp.ones_like(norms), zero)


def _down(norms: Array, limits: Array | float) -> Array:
    xp = namespace(norms)
    one = xp.ones_like(norms)
    return xp.where(norms <= limits, one, limits / xp.where(norms == 0, one, norms))
