"""Rules over moving averages of the norms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from gradclip._arrays import Array, namespace
from gradclip.adaptive.checks import count, share
from gradclip.thresholds import Context, State, Threshold, positive

__all__ = ["Ema", "EmaRatio", "Growth", "SecondMoment", "ZScore"]


@dataclass(frozen=True)
class ZScore(Threshold):
    """Clip what lies ``z`` deviations above the mean, and the further the harder: ZClip (2025, arXiv 2504.02507).

    With ``s = (n - mu) / (sigma + 1e-6) > z``, ``T = mu + z * sigma / (s / z)``; mean and variance are moving averages of
    the clipped norms, begun with those of the first ``warmup`` steps. The published code also clips to a constant 1.0
    unless told not to; that is a rule of its own, so here ``cap`` is infinite by default.

    Raises:
        ValueError: ``z`` or ``cap`` not > 0, ``alpha`` outside (0, 1), or ``warmup`` < 2.
    """

    z: float = 2.5
    alpha: float = 0.97
    warmup: int = 25
    cap: float = math.inf
    stateful: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "z", positive(self.z, "the z-score"))
        object.__setattr__(self, "alpha", share(self.alpha, "alpha"))
        object.__setattr__(self, "warmup", count(self.warmup, "the warm-up", 2))
        object.__setattr__(self, "cap", positive(self.cap, "the cap"))

    def init(self, norms: Array) -> State:
        zero = norms * 0
        return {"count": zero, "mean": zero, "var": zero}

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        seen, mean, var = state["count"], state["mean"], state["var"]
        warm, active = seen >= self.warmup, norms > 0
        deviation = xp.sqrt(var)
        score = (norms - mean) / (deviation + 1e-6)
        spike = warm & (score > self.z)
        limit = xp.where(spike, mean + self.z * deviation * self.z / xp.where(spike, score, xp.ones_like(score)), xp.inf)
        fed = xp.where(spike, limit, norms)
        more = seen + 1
        mean_warming = mean + (norms - mean) / more
        var_warming = (var * seen + (norms - mean) * (norms - mean_warming)) / more
        mean_after = self.alpha * mean + (1 - self.alpha) * fed
        var_after = self.alpha * var + (1 - self.alpha) * (fed - mean_after) ** 2
        following = {
            "count": more,
            "mean": xp.where(warm, mean_after, mean_warming),
            "var": xp.where(warm, var_after, var_warming),
        }
        cap = xp.ones_like(norms) * self.cap
        return xp.where(limit > cap, cap, limit), where_active(active, following, state)


@dataclass(frozen=True)
class EmaRatio(Threshold):
    """A ratio to the moving average of each block's clipped norms: AdaGC (2025, arXiv 2502.11034).

    ``T_t = ratio * ema_(t-1)`` with ``ema_t = beta * ema_(t-1) + (1 - beta) * min(n_t, T_t)``. For the first ``warmup``
    steps all blocks together are clipped to ``warmup_norm``, and the average is the least clipped norm so far. The
    warm-up is counted in steps of the run; a block that gets its first gradient later has its own first step.

    Raises:
        ValueError: ``ratio`` or ``warmup_norm`` not > 0, ``beta`` outside (0, 1), or ``warmup`` < 1.
    """

    ratio: float = 1.04
    beta: float = 0.99
    warmup: int = 100
    warmup_norm: float = 1.0
    stateful: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", positive(self.ratio, "the ratio"))
        object.__setattr__(self, "beta", share(self.beta, "beta"))
        object.__setattr__(self, "warmup", count(self.warmup, "the warm-up"))
        object.__setattr__(self, "warmup_norm", positive(self.warmup_norm, "the norm of the warm-up"))

    def init(self, norms: Array) -> State:
        xp = namespace(norms)
        return {"count": norms[:1] * 0, "ema": xp.ones_like(norms) * xp.inf}

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        ema = state["ema"]
        warming = (state["count"] < self.warmup) | (ema == xp.inf)
        largest = xp.max(norms)
        scale = xp.where(largest > 0, largest, xp.ones_like(largest))
        whole = xp.sqrt(xp.sum((norms / scale) ** 2)) * scale
        shrink = xp.where(whole > self.warmup_norm, self.warmup_norm / whole, xp.ones_like(whole))
        limit = xp.where(warming, norms * shrink, self.ratio * ema)
        clipped = xp.where(norms < limit, norms, limit)
        least = xp.where(ema < clipped, ema, clipped)
        following = xp.where(warming, least, self.beta * ema + (1 - self.beta) * clipped)
        return limit, {"count": state["count"] + 1, "ema": xp.where(norms > 0, following, ema)}


@dataclass(frozen=True)
class Ema(Threshold):
    """A ratio to the moving average of each block's norms: AGGC (2026, arXiv 2601.11864), with ``Band``.

    ``T_t = high * S_t`` with ``S_t = beta * S_(t-1) + (1 - beta) * min(n_t, T_(t-1))``, ``S_0 = n_0``. The paper averages
    unclipped norms and moves its two coefficients over a window; here the clipped norm is fed back, so that one spike
    cannot raise the limit for long, and the coefficients are constant.

    Raises:
        ValueError: ``high`` < 1, or ``beta`` outside (0, 1).
    """

    high: float = 1.5
    beta: float = 0.99
    stateful: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not positive(self.high, "the upper edge") >= 1:
            raise ValueError(f"the upper edge is a multiple of the average, >= 1, not {self.high}")
        object.__setattr__(self, "high", float(self.high))
        object.__setattr__(self, "beta", share(self.beta, "beta"))

    def init(self, norms: Array) -> State:
        return {"ema": norms * 0}

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        before = state["ema"]
        limit = self.high * xp.where(before > 0, before, norms)
        clipped = xp.where(norms < limit, norms, limit)
        ema = xp.where(before > 0, self.beta * before + (1 - self.beta) * clipped, norms)
        ema = xp.where(norms > 0, ema, before)
        return xp.where(ema > 0, self.high * ema, xp.inf), {"ema": ema}


@dataclass(frozen=True)
class SecondMoment(Threshold):
    """An element at most ``sqrt(factor * v)``, v the average of its squares: SPAM's spike rule (2025, arXiv 2501.06842).

    ``v`` is the rule's own average of clipped squares (Adam's second moment has the same values at the same beta), not
    corrected for its start, as in the paper's code; it binds after ``warmup`` steps and where ``v > 0``. One number an
    element.

    Raises:
        ValueError: ``factor`` not > 0, ``beta`` outside (0, 1), or ``warmup`` < 1.
    """

    factor: float = 5000.0
    beta: float = 0.999
    warmup: int = 20
    stateful: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", positive(self.factor, "the factor"))
        object.__setattr__(self, "beta", share(self.beta, "beta"))
        object.__setattr__(self, "warmup", count(self.warmup, "the warm-up"))

    def init(self, norms: Array) -> State:
        return {"count": norms[:1] * 0, "v": norms * 0}

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        v = state["v"]
        binding = (state["count"] >= self.warmup) & (v > 0)
        limit = xp.where(binding, xp.sqrt(self.factor * v), xp.inf)
        clipped = xp.where(norms < limit, norms, limit)
        return limit, {"count": state["count"] + 1, "v": self.beta * v + (1 - self.beta) * clipped**2}


@dataclass(frozen=True)
class Growth(Threshold):
    """At most ``ratio`` times the previous norm: the norm-growth limiter of Fira (2024, arXiv 2410.01623).

    The previous clipped norm counts, and never as less than ``floor`` of the largest clipped norm so far: in the
    published form one near-zero step would lock the norm there for hundreds of steps. The first step is free.

    Raises:
        ValueError: ``ratio`` < 1, or ``floor`` outside (0, 1).
    """

    ratio: float = 1.01
    floor: float = 0.01
    stateful: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not positive(self.ratio, "the growth") >= 1:
            raise ValueError(f"the growth is a ratio >= 1, not {self.ratio}")
        object.__setattr__(self, "ratio", float(self.ratio))
        object.__setattr__(self, "floor", share(self.floor, "the floor"))

    def init(self, norms: Array) -> State:
        return {"previous": norms * 0, "largest": norms * 0}

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        least = self.floor * state["largest"]
        base = xp.where(state["previous"] > least, state["previous"], least)
        limit = xp.where(base > 0, self.ratio * base, xp.inf)
        clipped = xp.where(norms < limit, norms, limit)
        largest = xp.where(clipped > state["largest"], clipped, state["largest"])
        return limit, where_active(norms > 0, {"previous": clipped, "largest": largest}, state)


def where_active(active: Array, following: State, state: State) -> State:
    """Return the next state of the blocks that had a gradient, and the old one of the others."""
    xp = namespace(active)
    return {key: xp.where(active, value, state[key]) for key, value in following.items()}
