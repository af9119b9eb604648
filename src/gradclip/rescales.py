"""The rescale axis: what happens to a block, given its norm and its limit?

Each rescale is the function ``phi`` of ``g <- g * phi(n / T)``, written on arrays of norms ``n`` and limits ``T``
in whatever array library holds them. ``T = inf`` measures only: every factor is 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar

from gradclip._arrays import Array, namespace
from gradclip.arguments import number, set_fields
from gradclip.thresholds.moving import Warmup, extremes

__all__ = ["Band", "Clamp", "Drop", "Hard", "Normalize", "Rescale", "Soft"]


class Rescale(ABC):
    """Turn norms and limits into factors.

    A limit that is a Python number is divided as an array: PyTorch divides a number by a tensor by multiplying with the
    inverse, which is infinite where a norm is small.
    """

    formula: ClassVar[str]
    caps: ClassVar[bool] = False
    """A block is multiplied by ``min(1, T/n)``, so one at or below its limit is left alone."""
    raises: ClassVar[bool] = False
    """A factor may be greater than 1; it brings no element beyond the range of its dtype."""
    drops: ClassVar[bool] = False
    """A factor of 0 takes the gradient away."""
    elementwise: ClassVar[bool] = False
    """The limit is measured on a block and applied to its elements: they are clamped, not multiplied by the factor."""
    moves: ClassVar[bool] = False
    """A number of it may move with the step, so that :meth:`at` is to be asked."""

    def factors(self, norms: Array, limits: Array | float, step: int | Array = 0) -> Array:
        """Return the factor of each block, shaped like ``norms``; 1 where the limit is inf, else NaN for a NaN norm."""
        xp, now = namespace(norms), self.at(step, norms) if self.moves else self
        if isinstance(limits, float):
            return xp.ones_like(norms) if limits == xp.inf else now.phi(norms, limits)
        one, unlimited = xp.ones_like(norms), limits == xp.inf
        return xp.where(unlimited, one, now.phi(norms, xp.where(unlimited, one, limits)))

    def at(self, step: int | Array, norms: Array) -> Rescale:
        """Return it with every number that moves as it is at this step, as an array like ``norms`` where the step is one."""
        return self

    @abstractmethod
    def phi(self, norms: Array, limits: Array | float) -> Array:
        """Return ``phi(n / T)`` for limits that are finite, and numbers that do not move."""


def _down_to_limit(self: Rescale, norms: Array, limits: Array | float) -> Array:
    """Return ``min(1, T/n)``, exactly 1 where nothing is above its limit."""
    xp = namespace(norms)
    one, within = xp.ones_like(norms), norms <= limits
    return xp.where(
        within, one, limits * one / xp.where(within, one, norms)
    )  # no division that is not used: it has a derivative


@dataclass(frozen=True)
class Hard(Rescale):
    """Scale down to the limit what exceeds it, leave the rest: ``min(1, T/n)`` (Pascanu et al. 2013)."""

    formula: ClassVar[str] = "min(1, T/n)"
    caps: ClassVar[bool] = True

    phi = _down_to_limit


@dataclass(frozen=True)
class Clamp(Rescale):
    """Clamp the elements of a block to a limit on its largest: what lies above is brought down to T, the rest stays.

    Measured on a block of whole tensors (with ``LINF``), applied to elements: it bends the direction. The factor it gives
    is that of the largest element, ``min(1, T/n)``. (Under ``PerElement``, where a block is one element, ``Hard`` does this.)
    """

    formula: ClassVar[str] = "clamp(g, -T, T)"
    elementwise: ClassVar[bool] = True

    phi = _down_to_limit


@dataclass(frozen=True)
class Normalize(Rescale):
    """Bring every block to the limit, up or down: ``T/n``; a zero block stays zero.

    No element is brought beyond the range of its dtype: the factor is then the one that takes the largest to its end.
    """

    formula: ClassVar[str] = "T/n"
    raises: ClassVar[bool] = True

    def phi(self, norms: Array, limits: Array | float) -> Array:
        xp = namespace(norms)
        one = xp.ones_like(norms)
        return xp.where(norms == 0, one, limits * one / xp.where(norms == 0, one, norms))


@dataclass(frozen=True)
class Soft(Rescale):
    """Approach the limit smoothly: ``(1 + r^k)^(-1/k)`` with ``r = n/T``, so the result stays below ``T``.

    At ``k = 1`` it is ``1 / (1 + n/T)`` (Zhang et al. 2020, arXiv 1905.11881), at 2 the form of SPECTRA (arXiv 2603.14315);
    the larger k, the later it bends, and its limit is ``Hard``.

    Raises:
        ValueError: ``k`` is not > 0, or infinite.

    >>> import numpy as np
    >>> [Soft(k).factors(np.array([3.0]), 4.0).round(3).item() for k in (1, 2, 8)]
    [0.571, 0.8, 0.988]
    """

    k: float = 1.0
    formula: ClassVar[str] = "(1 + (n/T)^k)^(-1/k)"

    def __post_init__(self) -> None:
        set_fields(self, k=number(self.k, "the power k"))
        if not 0 < self.k < math.inf:
            raise ValueError(
                f"the power k must be > 0 and finite, not {self.k:g}: for inf, where nothing is bent, write Hard()"
            )

    @property
    def soft(self) -> bool | float:
        """The power as ``normalize`` spells it."""
        return self.k == 1 or self.k

    def phi(self, norms: Array, limits: Array | float) -> Array:
        ratio = norms / limits
        if self.k == 1:
            return 1.0 / (1.0 + ratio)
        xp = namespace(norms)
        one, over, zero = xp.ones_like(ratio), ratio > 1, ratio == 0
        inverse = 1.0 / xp.where(over, ratio, one)  # the power of the smaller one cannot overflow
        power = xp.where(zero, one, xp.where(over, inverse, ratio)) ** self.k  # nor has it a slope without end
        bent = (1.0 + xp.where(zero, 0.0 * one, power)) ** (-1 / self.k)
        return inverse * bent


@dataclass(frozen=True)
class Band(Rescale):
    """Keep each norm between ``low * T`` and ``T``, scaling up by at most ``max_gain``; ``Linear`` or ``Cosine`` moves ``low``.

    No element is scaled up beyond the range of its dtype.

    Raises:
        ValueError: ``low`` outside [0, 1], or ``max_gain`` below 1.
    """

    low: float | Warmup = 0.5
    max_gain: float = 10.0
    moves: ClassVar[bool] = True
    formula: ClassVar[str] = "clip(1, low T/n, T/n)"
    raises: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.low, Warmup):
            set_fields(self, low=number(self.low, "a band's low edge"))
        least, largest = extremes(self.low)
        if not 0 <= least <= largest <= 1:
            raise ValueError(f"a band's low edge is a share of the limit between 0 and 1, not {self.low}")
        if not self.max_gain >= 1:
            raise ValueError(f"max_gain must be >= 1, not {self.max_gain}")

    def at(self, step: int | Array, norms: Array) -> Rescale:
        if not isinstance(self.low, Warmup):
            return self
        now = copy(self)  # not checked again: at a traced step the edge is an array without a value
        set_fields(now, low=self.low.at(step, norms))
        return now

    def phi(self, norms: Array, limits: Array | float) -> Array:
        xp = namespace(norms)
        one = xp.ones_like(norms)
        low: Any = self.low
        ratio = limits * one / xp.where(norms == 0, one, norms)
        gain = xp.where(low * ratio > self.max_gain, one * self.max_gain, low * ratio)
        up = (norms < low * limits) & (norms > 0)
        return xp.where(norms <= limits, xp.where(up, gain, one), ratio)


@dataclass(frozen=True)
class Drop(Rescale):
    """Set to zero what exceeds the limit: the step (or the block) is skipped."""

    formula: ClassVar[str] = "0 if n > T else 1"
    drops: ClassVar[bool] = True

    def phi(self, norms: Array, limits: Array | float) -> Array:
        xp = namespace(norms)
        zero: Any = norms * 0  # NaN stays NaN
        return xp.where(norms <= limits, xp.ones_like(norms), zero)
