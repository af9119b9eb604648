"""Rules over the last norms: a quantile of them, a multiple of their median, and what lies far outside."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gradclip._arrays import Array, namespace
from gradclip.arguments import begins_within, positive, set_fields, share, whole
from gradclip.thresholds.columns import interpolated, row_numbers, rows_of, zeros
from gradclip.thresholds.rule import Context, State, Threshold

__all__ = ["Outlier", "Quantile", "Typical", "empty_window", "into_window", "quantile_of"]


@dataclass(frozen=True)
class Quantile(Threshold):
    """A quantile of the last ``window`` norms, this one left out (QC-SGD: arXiv 2309.17316; the package ``autoclip``).

    Linear interpolation between ranks; unclipped norms are kept, or the quantile could only fall. The first step is free,
    and each block has its own window, of the steps in which it had a gradient.

    Raises:
        ValueError: ``q`` outside (0, 1], or ``window`` < 1.
    """

    q: float = 0.9
    window: int = 1000
    stateful = True

    def __post_init__(self) -> None:
        set_fields(self, q=share(self.q, "the quantile", one=True), window=whole(self.window, "the window"))

    def init(self, norms: Array) -> State:
        return empty_window(norms, self.window)

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        return quantile_of(xp, state, self.q)[0], into_window(xp, state, norms)


@dataclass(frozen=True)
class Outlier(Threshold):
    """So many deviations above the mean of the last norms: the skip-step rule of OLMo-core, with ``Drop``.

    ``T = mean + sigma * deviation`` of the last ``window`` norms, once there are ``after`` of them; deviations are those of
    a sample (n - 1). Departures from the published code: it also drops steps whose norm is far *below* the mean, or whose
    loss is far from its own; it begins one norm earlier; and it keeps the outliers, which then hide the next ones, where
    here the limit is kept in their place. A deviation below 1e-6 of the mean counts as that, or a step would be dropped
    whose norm is that of the others but for rounding.

    Raises:
        ValueError: ``sigma`` not > 0, ``window`` < 2, or ``after`` outside [2, window].
    """

    sigma: float = 6.0
    window: int = 128
    after: int = 64
    stateful = True

    def __post_init__(self) -> None:
        set_fields(
            self,
            sigma=positive(self.sigma, "sigma"),
            window=whole(self.window, "the window", 2),
            after=whole(self.after, "the first step that counts", 2),
        )
        begins_within(self.after, self.window)

    def init(self, norms: Array) -> State:
        return empty_window(norms, self.window)

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        held = state["window"] < xp.inf
        number = xp.sum(xp.astype(held, norms.dtype), axis=0)
        safe = xp.where(number > 1, number, 2 * xp.ones_like(number))
        mean = xp.sum(xp.where(held, state["window"], xp.zeros_like(state["window"])) / safe[None, :], axis=0)
        spread = xp.where(held, state["window"] - mean[None, :], xp.zeros_like(state["window"]))
        deviation = xp.maximum(_root_mean_square(spread, safe - 1), 1e-6 * mean)
        limit = xp.where(number >= self.after, mean + self.sigma * deviation, xp.inf)
        return limit, into_window(xp, state, xp.minimum(norms, limit))


@dataclass(frozen=True)
class Typical(Threshold):
    """A multiple of the median of the last clipped norms: ``T = factor * median``, once there are ``after`` of them.

    A median is not moved by the spikes it is there to catch, however heavy their tail. Clipped norms are fed back, so that
    even a run of spikes raises the limit only by ``factor`` in half a window; a norm that really drifts is followed.

    Raises:
        ValueError: ``factor`` < 1, ``window`` < 1, or ``after`` outside [1, window].
    """

    factor: float = 4.0
    window: int = 100
    after: int = 10
    stateful = True

    def __post_init__(self) -> None:
        set_fields(
            self,
            factor=positive(self.factor, "the multiple of the typical norm"),
            window=whole(self.window, "the window"),
            after=whole(self.after, "the first step that counts"),
        )
        if self.factor < 1:
            raise ValueError(f"a limit below the typical norm would clip for ever: write a factor >= 1, not {self.factor:g}")
        begins_within(self.after, self.window)

    def init(self, norms: Array) -> State:
        return empty_window(norms, self.window)

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        median, held = quantile_of(xp, state, 0.5)
        limit = xp.where(held >= self.after, self.factor * median, xp.inf * xp.ones_like(norms))
        return limit, into_window(xp, state, xp.minimum(norms, limit))


def _root_mean_square(numbers: Array, count: Array) -> Array:
    """Return the root of the sum of squares down each column over a count, scaled so that no square overflows."""
    xp = namespace(numbers)
    largest = xp.max(xp.abs(numbers), axis=0)
    scale = xp.where(largest > 0, largest, xp.ones_like(largest))
    return scale * xp.sqrt(xp.sum((numbers / scale[None, :]) ** 2, axis=0) / count)


def empty_window(norms: Array, length: int) -> State:
    """Return a window without norms: inf where there is none yet."""
    zero = zeros(norms, "count")
    return {"window": rows_of(zero["count"], length) + math.inf, **zero}


def quantile_of(xp: Any, state: State, q: float) -> tuple[Array, Array]:
    """Return each block's quantile of the norms in its window (inf where it is empty), and how many these are."""
    window = state["window"]
    held = xp.sum(xp.astype(window < xp.inf, window.dtype), axis=0)
    rank = q * xp.where(held > 0, held - 1, held)
    ends = xp.astype(xp.stack([xp.floor(rank), xp.ceil(rank)]), xp.int64)
    below, above = xp.take_along_axis(xp.sort(window, axis=0), ends, axis=0)
    return interpolated(xp, below, above, rank), held


def into_window(xp: Any, state: State, norms: Array) -> State:
    """Put each block's norm in place of its oldest; a block without a gradient keeps its window."""
    window, seen = state["window"], state["count"]
    active = norms > 0
    here = (row_numbers(xp, window) == (seen % window.shape[0])[None, :]) & active[None, :]
    return {"window": xp.where(here, norms[None, :], window), "count": seen + xp.astype(active, norms.dtype)}
