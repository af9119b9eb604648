"""Rules over moving averages of the norms."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradclip._arrays import Array, namespace
from gradclip.arguments import positive, set_fields, share, whole
from gradclip.thresholds.columns import where_active, zeros
from gradclip.thresholds.moving import Warmup, extremes, moved
from gradclip.thresholds.rule import Context, State, Threshold

__all__ = ["Ema", "EmaRatio", "Growth", "SecondMoment", "ZScore"]

_SMALL = 1e-290
"""A quotient below this may have lost digits, or have vanished."""


@dataclass(frozen=True)
class ZScore(Threshold):
    """Clip what lies ``z`` deviations above the mean, and the further the harder: ZClip (2025, arXiv 2504.02507).

    With ``s = (n - mu) / sigma > z``, ``T = mu + z * sigma / (s / z)``; mean and variance are moving averages of the
    clipped norms, begun with those of the first ``warmup`` steps, which are only measured. Departures from the published
    code: it also clips to a constant 1.0 unless told not to, a rule of its own, so here ``cap`` is infinite by default;
    it adds 1e-6 to sigma, which turns the rule off for norms that small, so here sigma counts as at least 1e-6 of the
    mean; it keeps the square of sigma, which overflows; it counts steps without a gradient, and one NaN disables it for good.

    Raises:
        ValueError: ``z`` or ``cap`` not > 0, ``alpha`` outside (0, 1), or ``warmup`` < 2.
    """

    z: float = 2.5
    alpha: float = 0.97
    warmup: int = 25
    cap: float = math.inf
    stateful = True

    def __post_init__(self) -> None:
        set_fields(
            self,
            z=positive(self.z, "the z-score"),
            alpha=share(self.alpha, "alpha"),
            warmup=whole(self.warmup, "the warm-up", 2),
            cap=positive(self.cap, "the cap"),
        )

    def init(self, norms: Array) -> State:
        return zeros(norms, "count", "mean", "deviation")

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        seen, mean, own = state["count"], state["mean"], state["deviation"]
        warm, active = seen >= self.warmup, norms > 0
        deviation = xp.maximum(own, 1e-6 * mean)
        score = (norms - mean) / xp.where(deviation > 0, deviation, xp.ones_like(norms))
        spike = warm & (score > self.z)
        share = self.z / xp.where(spike, score, xp.ones_like(score))
        limit = xp.where(spike, mean + deviation * (self.z * share), xp.inf)  # in this order nothing is beyond the norm
        fed = xp.where(spike, limit, norms)
        more = seen + 1
        mean_warming = mean + (norms - mean) / more
        warming = xp.hypot(own * xp.sqrt(seen / more), (norms - mean) * xp.sqrt(seen) / more)
        mean_after = self.alpha * mean + (1 - self.alpha) * fed
        after = xp.hypot(own * math.sqrt(self.alpha), (fed - mean_after) * math.sqrt(1 - self.alpha))
        following = {
            "count": more,
            "mean": xp.where(warm, mean_after, mean_warming),
            "deviation": xp.where(warm, after, warming),
        }
        return xp.where(limit > self.cap, self.cap, limit), where_active(xp, active, following, state)


@dataclass(frozen=True)
class EmaRatio(Threshold):
    """A ratio to the moving average of each block's clipped norms: AdaGC (2025, arXiv 2502.11034).

    ``T_t = ratio * ema_(t-1)`` with ``ema_t = beta * ema_(t-1) + (1 - beta) * min(n_t, T_t)``. For the first ``warmup``
    steps all blocks together are clipped to ``warmup_norm``, and the average is the least clipped norm so far. The
    warm-up is counted in steps of the run; a block that gets its first gradient later has its own first step.

    Departures: the average counts as at least ``floor`` of the block's largest clipped norm so far. As published, one
    near-zero step in the warm-up (or one spike elsewhere, which scales all blocks down) is the limit from then on, and
    it can grow by only ``(1 - beta) * (ratio - 1)``, 0.04 %, a step.

    Raises:
        ValueError: ``ratio`` or ``warmup_norm`` not > 0, ``beta`` or ``floor`` outside (0, 1), or ``warmup`` < 1.
    """

    ratio: float = 1.04
    beta: float = 0.99
    warmup: int = 100
    warmup_norm: float = 1.0
    floor: float = 0.01
    stateful = True
    couples = True

    def __post_init__(self) -> None:
        set_fields(
            self,
            ratio=positive(self.ratio, "the ratio"),
            beta=share(self.beta, "beta"),
            warmup=whole(self.warmup, "the warm-up"),
            warmup_norm=positive(self.warmup_norm, "the norm of the warm-up"),
            floor=share(self.floor, "the floor"),
        )

    def init(self, norms: Array) -> State:
        return {**zeros(norms[:1], "count"), "ema": namespace(norms).zeros_like(norms) + math.inf, **zeros(norms, "largest")}

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        ema, largest = state["ema"], state["largest"]
        warming = (state["count"] < self.warmup) | (ema == xp.inf)
        base = xp.maximum(ema, self.floor * largest)
        limit = xp.where(warming, self._together(norms), self.ratio * base)
        clipped = xp.minimum(norms, limit)
        following = {
            "ema": xp.where(warming, xp.where(ema < clipped, ema, clipped), self.beta * base + (1 - self.beta) * clipped),
            "largest": xp.maximum(largest, clipped),
        }
        return limit, {"count": state["count"] + 1, **where_active(xp, norms > 0, following, state)}

    def _together(self, norms: Array) -> Array:
        """Return the norms when all blocks together are brought to the norm of the warm-up, without overflow on the way."""
        xp = namespace(norms)
        largest = xp.max(norms) if norms.shape[0] else xp.sum(norms)
        scale = xp.where(largest > 0, largest, xp.ones_like(largest))
        whole = xp.where(largest > 0, xp.sqrt(xp.sum((norms / scale) ** 2)), xp.ones_like(largest))
        limit = self.warmup_norm * xp.ones_like(scale)
        part = norms / scale
        shrunk = xp.where(part > _SMALL, part * (limit / whole), norms * (limit / scale / whole))
        return xp.where(whole > limit / scale, shrunk, norms)


@dataclass(frozen=True)
class Ema(Threshold):
    """A ratio to the moving average of each block's norms: AGGC (2026, arXiv 2601.11864), with ``Band``.

    ``T_t = max(high * S_t, min_gain * n_t)`` with ``S_t = beta * S_(t-1) + (1 - beta) * min(n_t, T)``, where this last T
    is that of ``S_(t-1)``, and ``S_0 = n_0``. ``high`` may move (``Linear``, ``Cosine``), as both edges do in the paper;
    below 1 it needs ``min_gain``, the least that a norm is scaled to in one step: without, the average would feed on its
    own cuts and shrink to nothing. Departures: the paper averages unclipped norms, its code those it has scaled, from
    ``S_0 = 0``, and limits with ``S_(t-1)``; here the clipped norm is fed back, so that one spike cannot raise the limit
    for long.

    Raises:
        ValueError: ``high`` < 1 without ``min_gain``, ``beta`` outside (0, 1), or ``min_gain`` outside [0, 1).
    """

    high: float | Warmup = 1.5
    beta: float = 0.99
    min_gain: float = 0.0
    stateful = True

    def __post_init__(self) -> None:
        if not isinstance(self.high, Warmup):
            object.__setattr__(self, "high", positive(self.high, "the upper edge"))
        set_fields(self, beta=share(self.beta, "beta"), min_gain=share(self.min_gain, "the least gain", zero=True))
        if extremes(self.high)[0] < 1 and not self.min_gain:
            raise ValueError(f"the upper edge is a multiple of the average, >= 1 (below it, set min_gain), not {self.high}")

    def init(self, norms: Array) -> State:
        return zeros(norms, "ema")

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        before, high = state["ema"], moved(self.high, context.step, norms)
        begun, least = before > 0, self.min_gain * norms
        limit = xp.maximum(high * xp.where(begun, before, norms), least)
        clipped = xp.minimum(norms, limit)
        ema = xp.where(begun, self.beta * before + (1 - self.beta) * clipped, norms)
        ema = xp.where(norms > 0, ema, before)
        above = xp.where(begun, least, norms)  # the first norm is left alone
        return xp.where(ema > 0, xp.maximum(high * ema, above), xp.inf), {"ema": ema}


@dataclass(frozen=True)
class SecondMoment(Threshold):
    """An element at most ``sqrt(factor * v)``, v the average of its squares: SPAM's spike rule (2025, arXiv 2501.06842).

    ``v`` is the rule's own average of clipped squares (Adam's second moment has the same values at the same beta), not
    corrected for its start, as in the paper's code; it binds after ``warmup`` steps and where ``v > 0``. One number an
    element: the root of v, so that no square overflows. Departures: an element whose gradient is 0 keeps its ``v``, which
    would fall away between the rare gradients of an embedding's rows; and the momentum resets of the paper's optimizer are
    no part of clipping.

    Raises:
        ValueError: ``factor`` not > 0, ``beta`` outside (0, 1), or ``warmup`` < 1.
    """

    factor: float = 5000.0
    beta: float = 0.999
    warmup: int = 20
    stateful = True

    def __post_init__(self) -> None:
        set_fields(
            self,
            factor=positive(self.factor, "the factor"),
            beta=share(self.beta, "beta"),
            warmup=whole(self.warmup, "the warm-up"),
        )

    def init(self, norms: Array) -> State:
        return {**zeros(norms[:1], "count"), **zeros(norms, "rms")}

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        rms = state["rms"]
        binding = (state["count"] >= self.warmup) & (rms > 0)
        limit = xp.where(binding, math.sqrt(self.factor) * rms, xp.inf)
        clipped = xp.minimum(norms, limit)
        following = {"rms": xp.hypot(math.sqrt(self.beta) * rms, math.sqrt(1 - self.beta) * clipped)}
        return limit, {"count": state["count"] + 1, **where_active(xp, norms > 0, following, state)}


@dataclass(frozen=True)
class Growth(Threshold):
    """At most ``ratio`` times the previous norm: the norm-growth limiter of Fira (2024, arXiv 2410.01623).

    The previous clipped norm counts, and never as less than ``floor`` of the largest clipped norm so far: in the
    published form one near-zero step locks the norm there for hundreds of steps. The first step is free; where it is
    itself near zero (adapters that start at zero), the limit grows from there, tenfold in 232 steps. The paper limits a
    part of the update in this way; here it is the gradient.

    Raises:
        ValueError: ``ratio`` < 1, or ``floor`` outside (0, 1).
    """

    ratio: float = 1.01
    floor: float = 0.01
    stateful = True

    def __post_init__(self) -> None:
        if not positive(self.ratio, "the growth") >= 1:
            raise ValueError(f"the growth is a ratio >= 1, not {self.ratio}")
        set_fields(self, ratio=float(self.ratio), floor=share(self.floor, "the floor"))

    def init(self, norms: Array) -> State:
        return zeros(norms, "previous", "largest")

    def limits(self, norms: Array, state: State, context: Context) -> tuple[Array | float, State]:
        xp = namespace(norms)
        base = xp.maximum(state["previous"], self.floor * state["largest"])
        limit = xp.where(base > 0, self.ratio * base, xp.inf)
        clipped = xp.minimum(norms, limit)
        following = {"previous": clipped, "largest": xp.maximum(state["largest"], clipped)}
        return limit, where_active(xp, norms > 0, following, state)
