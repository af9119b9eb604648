"""Rules over the last norms: a quantile of them, and what lies far outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gradclip._arrays import Array, namespace
from gradclip.adaptive.checks import count, share
from gradclip.thresholds import Context, State, Threshold, positive

__all__ = ["Outlier", "Quantile"]


@dataclass(frozen=True)
class Quantile(Threshold):
    """A quantile of the last ``window`` norms, this one left out (QC-SGD: arXiv 2309.17316; the package ``autoclip``).

    Linear interpolation between ranks; unclipped norms are kept, or the quantile could only fall. The first step is free.

    Raises:
        ValueError: ``q`` outside (0, 1], or ``window`` < 1.
    """

    q: float = 0.9
    window: int = 1000
    stateful: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "q", share(self.q, "the quantile", closed=True))
        object.__setattr__(self, "window", count(self.window, "the window"))

    def init(self, norms: Array) -> State:
        return empty_window(norms, self.window)

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        filled = xp.where(state["count"] > self.window, self.window * xp.ones_like(state["count"]), state["count"])
        ordered = xp.sort(state["window"], axis=0)
        rank = self.q * (filled - 1)
        rank = xp.where(rank < 0, xp.zeros_like(rank), rank)
        low = xp.floor(rank)
        below = xp.take(ordered, xp.astype(low, xp.int64), axis=0)[0, :]
        above = xp.take(ordered, xp.astype(xp.ceil(rank), xp.int64), axis=0)[0, :]
        between = xp.where(below == above, below, below + (above - below) * (rank - low))
        return between, into_window(state, norms)


@dataclass(frozen=True)
class Outlier(Threshold):
    """So many deviations above the mean of the last norms: the skip-step rule of OLMo-core, with ``Drop``.

    ``T = mean + sigma * deviation`` of the last ``window`` norms, once there are ``after`` of them. Clipped norms are kept
    (the published code keeps the outliers, which then hide the next ones); deviations are those of a sample (n - 1).

    Raises:
        ValueError: ``sigma`` not > 0, ``window`` < 2, or ``after`` outside [2, window].
    """

    sigma: float = 6.0
    window: int = 128
    after: int = 64
    stateful: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", positive(self.sigma, "sigma"))
        object.__setattr__(self, "window", count(self.window, "the window", 2))
        object.__setattr__(self, "after", count(self.after, "the first step that counts", 2))
        if self.after > self.window:
            raise ValueError(f"the rule cannot begin after {self.after} norms: its window holds {self.window}")

    def init(self, norms: Array) -> State:
        return empty_window(norms, self.window)

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        held = state["window"] < xp.inf
        number = xp.sum(xp.astype(held, norms.dtype), axis=0)
        safe = xp.where(number > 1, number, 2 * xp.ones_like(number))
        mean = xp.sum(xp.where(held, state["window"], xp.zeros_like(state["window"])), axis=0) / safe
        spread = xp.where(held, state["window"] - mean[None, :], xp.zeros_like(state["window"]))
        deviation = xp.sqrt(xp.sum(spread**2, axis=0) / (safe - 1))
        limit = xp.where(number >= self.after, mean + self.sigma * deviation, xp.inf)
        return limit, into_window(state, xp.where(norms < limit, norms, limit))


def empty_window(norms: Array, length: int) -> State:
    """Return a window without norms: inf where there is none yet."""
    xp = namespace(norms)
    empty = xp.ones((length, norms.shape[0]), dtype=norms.dtype, device=norms.device) * xp.inf
    return {"window": empty, "count": norms[:1] * 0}


def into_window(state: State, norms: Array) -> State:
    """Put norms in place of the oldest; a step without any gradient is left out."""
    xp = namespace(norms)
    length = state["window"].shape[0]
    places = xp.arange(length, dtype=norms.dtype, device=norms.device)[:, None]
    here = places == (state["count"] % length)[None, :]
    active = xp.any(norms > 0)
    window = xp.where(here & active, norms[None, :], state["window"])
    return {"window": window, "count": state["count"] + xp.astype(active, norms.dtype)}
