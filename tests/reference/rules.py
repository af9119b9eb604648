"""The executable specification of the rules that learn: each paper's formula on one block's norms, step by step.

Plain Python numbers and lists that grow, as the papers write them; the rules in :mod:`gradclip.thresholds` share with this only
the names of their parameters. What all rules hold to is done in one place, :func:`limits`: a step in which a block has no
gradient is none of its steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gradclip import thresholds
from gradclip.thresholds import Threshold
from tests.reference.methods import at_step

__all__ = ["formula", "limits", "stride"]

Float: TypeAlias = npt.NDArray[np.longdouble]
Formula: TypeAlias = Callable[..., list[float]]


def limits(rule: Threshold, norms: npt.ArrayLike) -> Float:
    """Return the limit of every block at every step, NaN where the block has no gradient.

    Args:
        rule: a rule that learns.
        norms: the norms of the blocks, one row a step, one column a block; finite, 0 where there is no gradient.

    >>> limits(thresholds.Growth(1.5), [[1.0], [0.0], [9.0], [9.0]]).ravel().astype(float)
    array([ inf,  nan, 1.5 , 2.25])
    """
    history = np.asarray(norms, dtype=np.longdouble)
    if isinstance(rule, thresholds.Minimum):
        return np.minimum.reduce([limits(each, history) for each in rule.rules])
    found = np.full(history.shape, np.nan, dtype=np.longdouble)
    for block in range(history.shape[1]):
        steps = np.flatnonzero(history[:, block])
        found[steps, block] = _FORMULAS[type(rule)](rule, history[steps, block].tolist(), steps, history)
    return found


_FORMULAS: dict[type[Threshold], Formula] = {}


def formula(rule: type[Threshold]) -> Callable[[Formula], Formula]:
    """Register what a rule's paper says."""

    def register(function: Formula) -> Formula:
        _FORMULAS[rule] = function
        return function

    return register


@formula(thresholds.ZScore)
def _zclip(rule: thresholds.ZScore, norms: Sequence[float], *_: Any) -> list[float]:
    """ZClip: mean and variance of the warm-up, then their moving averages over the clipped norms."""
    found: list[float] = [rule.cap] * min(rule.warmup, len(norms))
    mean, var = np.mean(norms[: rule.warmup]), np.var(norms[: rule.warmup])
    for n in norms[rule.warmup :]:
        sigma = max(np.sqrt(var), 1e-6 * mean)
        score = (n - mean) / sigma
        limit = mean + rule.z * sigma / (score / rule.z) if score > rule.z else np.inf
        found.append(min(limit, rule.cap))
        clipped = min(n, limit)
        mean = rule.alpha * mean + (1 - rule.alpha) * clipped
        var = rule.alpha * var + (1 - rule.alpha) * (clipped - mean) ** 2
    return found


@formula(thresholds.EmaRatio)
def _adagc(rule: thresholds.EmaRatio, norms: Sequence[float], steps: npt.NDArray[Any], history: Float) -> list[float]:
    """AdaGC: all blocks together to one norm in the warm-up, each to a multiple of its own average after it."""
    found: list[float] = []
    gamma, largest = np.inf, 0.0
    for step, n in zip(steps, norms, strict=True):
        if step < rule.warmup or gamma == np.inf:
            whole = np.sqrt(np.sum(history[step] ** 2))
            limit = n * min(1.0, rule.warmup_norm / whole)
            gamma = min(gamma, limit)
        else:
            gamma = max(gamma, rule.floor * largest)
            limit = rule.ratio * gamma
            gamma = rule.beta * gamma + (1 - rule.beta) * min(n, limit)
        largest = max(largest, min(n, limit))
        found.append(limit)
    return found


@formula(thresholds.Ema)
def _aggc(rule: thresholds.Ema, norms: Sequence[float], steps: npt.NDArray[Any], *_: Any) -> list[float]:
    """AGGC's upper edge: the average takes this norm in, clipped by the edge before, then makes the new edge."""
    found: list[float] = []
    average = 0.0
    for step, n in zip(steps, norms, strict=True):
        high = at_step(rule.high, int(step))
        if not found:
            average = n
            found.append(max(high, 1.0) * n)
            continue
        average = rule.beta * average + (1 - rule.beta) * min(n, max(high * average, rule.min_gain * n))
        found.append(max(high * average, rule.min_gain * n))
    return found


@formula(thresholds.SecondMoment)
def _spam(rule: thresholds.SecondMoment, norms: Sequence[float], steps: npt.NDArray[Any], history: Float) -> list[float]:
    """SPAM: an element's square at most a multiple of the average of its squares."""
    found: list[float] = []
    v = 0.0
    for step, n in zip(steps, norms, strict=True):
        limit = np.sqrt(rule.factor * v) if step >= rule.warmup and v > 0 else np.inf
        v = rule.beta * v + (1 - rule.beta) * min(n, limit) ** 2
        found.append(limit)
    return found


@formula(thresholds.Growth)
def _growth(rule: thresholds.Growth, norms: Sequence[float], *_: Any) -> list[float]:
    """Fira's limiter: divide by ``max(n / previous, ratio) / ratio``."""
    found: list[float] = []
    clipped: list[float] = []
    for n in norms:
        limit = rule.ratio * max(clipped[-1], rule.floor * max(clipped)) if clipped else np.inf
        found.append(limit)
        clipped.append(min(n, limit))
    return found


@formula(thresholds.Percentile)
def _autoclip(rule: thresholds.Percentile, norms: Sequence[float], *_: Any) -> list[float]:
    """AutoClip: the percentile of everything so far."""
    return [float(np.percentile(norms[: i + 1], rule.percent)) for i in range(len(norms))]


@formula(thresholds.Quantile)
def _quantile(rule: thresholds.Quantile, norms: Sequence[float], *_: Any) -> list[float]:
    """QC-SGD: the quantile of the last norms."""
    windows = [norms[max(0, i - rule.window) : i] for i in range(len(norms))]
    return [float(np.quantile(w, rule.q)) if w else np.inf for w in windows]


@formula(thresholds.Outlier)
def _skip_step(rule: thresholds.Outlier, norms: Sequence[float], *_: Any) -> list[float]:
    """OLMo-core: mean and sample deviation of the last norms."""
    found: list[float] = []
    kept: list[float] = []
    for n in norms:
        recent = kept[-rule.window :]
        enough = len(recent) >= rule.after
        sigma = max(np.std(recent, ddof=1), 1e-6 * np.mean(recent)) if enough else 0.0
        found.append(float(np.mean(recent) + rule.sigma * sigma) if enough else np.inf)
        kept.append(min(n, found[-1]))
    return found


@formula(thresholds.Typical)
def _typical(rule: thresholds.Typical, norms: Sequence[float], *_: Any) -> list[float]:
    """A multiple of the median of the last clipped norms."""
    found: list[float] = []
    kept: list[float] = []
    for n in norms:
        recent = kept[-rule.window :]
        found.append(rule.factor * float(np.median(recent)) if len(recent) >= rule.after else np.inf)
        kept.append(min(n, found[-1]))
    return found


@formula(thresholds.Mean)
def _adaclip(rule: thresholds.Mean, norms: Sequence[float], *_: Any) -> list[float]:
    """Stable-SPAM's AdaClip: the moving average, corrected for its start."""
    found: list[float] = []
    m = 0.0
    for t, n in enumerate(norms, 1):
        m = rule.beta * m + (1 - rule.beta) * n
        found.append(m / (1 - rule.beta**t))
    return found


@formula(thresholds.Moments)
def _adagn(rule: thresholds.Moments, norms: Sequence[float], *_: Any) -> list[float]:
    """Stable-SPAM's AdaGN: the mean norm over the root of the mean square norm, both corrected for their start."""
    found: list[float] = []
    m = v = 0.0
    for t, n in enumerate(norms, 1):
        m = rule.beta1 * m + (1 - rule.beta1) * n
        v = rule.beta2 * v + (1 - rule.beta2) * n**2
        found.append(m / (1 - rule.beta1**t) / np.sqrt(v / (1 - rule.beta2**t)))
    return found


def stride(rule: thresholds.Stride, norms: Sequence[float], weights: Sequence[float], lr: float) -> list[float]:
    """Return the limits of one block under the rule that goes by weights and learning rate, given its norms so far."""
    found: list[float] = []
    seen: list[float] = []
    strides = 0
    for n, w in zip(norms, weights, strict=True):
        s = max(rule.least, (1 + 4 * strides / rule.window) ** -0.5)
        shortest = s * rule.eta * w / lr if lr else np.inf
        recent = seen[-rule.window :]
        median = np.median(recent) if recent else np.inf
        longest = rule.reach * shortest
        found.append(min(max(median, shortest), longest) if len(recent) >= rule.after else longest)
        if n > 0:
            strides += len(recent) >= rule.window and median > longest
            seen.append(n)
    return found
