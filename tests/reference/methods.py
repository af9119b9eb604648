"""The executable specification: every formula in NumPy, written as the papers write it, with no cleverness.

It counts in ``longdouble``, which on most machines has more digits than float64 and no end or gap near where float64 has one.

Slow on purpose. It shares with the fast backends only the axes' names: norms, limits and factors are computed here again,
literally, so that a test against this module can find a mistake in theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gradclip import rescales, scopes, thresholds
from gradclip.clipping import Clipping
from gradclip.norms import Norm

__all__ = ["Reference", "at_step", "clip", "norm_of"]

Long: TypeAlias = np.longdouble
Index: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class Reference:
    """What the specification says: the clipped gradients, and the norms before and after."""

    grads: list[npt.NDArray[Any]]
    norm: float
    clipped_norm: float
    block_norms: list[Long]
    limits: list[float]
    factors: list[Long]


def norm_of(values: npt.NDArray[Any], norm: Norm) -> float:
    """Return the norm of all elements together, as the formula says, scaled by the largest so that nothing overflows.

    >>> norm_of(np.array([3.0, 4.0]), Norm(2)), norm_of(np.array([3e200]), Norm(2))
    (5.0, 3e+200)
    """
    return float(_norm(values, norm))


def _norm(values: npt.NDArray[Any], norm: Norm) -> Long:
    x = np.abs(_wide(values)).ravel()
    if x.size == 0:
        return Long(0)
    largest = x.max()
    if norm.p == np.inf or largest == 0 or not np.isfinite(largest):
        return Long(largest)
    powers = np.sum((x / largest) ** norm.p)
    return Long(largest * (powers / x.size if norm.mean else powers) ** (1 / Long(norm.p)))


def clip(
    clipping: Clipping,
    grads: Sequence[npt.ArrayLike],
    weights: Sequence[npt.ArrayLike] | None = None,
    *,
    entries: Sequence[scopes.Entry] | None = None,
    step: int = 0,
    lrs: Sequence[float] | None = None,
    limits: Sequence[float] | None = None,
    ends: Sequence[float] | None = None,
) -> Reference:
    """Clip finite gradients as ``clipping`` says; the inputs are not changed.

    Args:
        grads: arrays of any shape; computed in extended precision.
        weights: the weights, for thresholds relative to them.
        entries: names, groups and unit axes, where the scope asks for them.
        step: the step a scheduled threshold is at.
        lrs: the learning rate of each array, for thresholds on the step; a block has the largest of its own.
        limits: the limit of each block, for thresholds that learn (:mod:`tests.reference.rules`).
        ends: the largest number that the dtype of each array holds, beyond which nothing is scaled up.

    >>> from gradclip import global_norm
    >>> [grad.astype(float) for grad in clip(global_norm(1.0), [[3.0], [4.0]]).grads]
    [array([0.6]), array([0.8])]
    """
    arrays = [_wide(g) for g in grads]
    entries = entries or [scopes.Entry(str(i), a.shape, group=0) for i, a in enumerate(arrays)]
    weighted = None if weights is None else [_wide(w) for w in weights]
    out = [a.copy() for a in arrays]
    norms: list[Long] = []
    factors: list[Long] = []
    bounds: list[float] = []
    blocks = _blocks(clipping.scope, entries)
    for number, block in enumerate(blocks):
        g = np.concatenate([arrays[i][at].ravel() for i, at in block] or [np.zeros(0)])
        n = _norm(g, clipping.norm)
        w = (
            None
            if weighted is None
            else _norm(np.concatenate([weighted[i][at].ravel() for i, at in block] or [np.zeros(0)]), clipping.norm)
        )
        lr = None if lrs is None else max((lrs[i] for i, _ in block), default=0.0)
        low, high = _limits(clipping.threshold, number, w, lr, step) if limits is None else (-limits[number], limits[number])
        t = -low if isinstance(clipping.threshold, thresholds.Bounds) and g.real < 0 else high
        f = _factor(clipping.rescale, n, t, step)
        if f > 1 and ends is not None:
            largest = [(ends[i], np.abs(arrays[i][at]).max(initial=0)) for i, at in block]
            f = max(Long(1), min([f, *(Long(end) / top for end, top in largest if top > 0)]))
        norms.append(n)
        bounds.append(t)
        factors.append(f)
        for i, at in block:
            out[i][at] = _clamped(arrays[i][at], t) if isinstance(clipping.rescale, rescales.Clamp) else arrays[i][at] * f
    inside = [i for i, e in enumerate(entries) if not _left_out(clipping.scope, e.name)]
    before = norm_of(np.concatenate([arrays[i].ravel() for i in inside] or [np.zeros(0)]), clipping.norm)
    after = norm_of(np.concatenate([out[i].ravel() for i in inside] or [np.zeros(0)]), clipping.norm)
    return Reference(out, before, after, norms, bounds, factors)


def _wide(array: npt.ArrayLike) -> npt.NDArray[Any]:
    a = np.asarray(array)
    return a.astype(np.clongdouble if np.iscomplexobj(a) else Long)


def _blocks(scope: scopes.Scope, entries: Sequence[scopes.Entry]) -> list[list[tuple[int, Index]]]:
    """List each block as (tensor, index into it) pairs."""
    kept = [(i, e) for i, e in enumerate(entries) if not _left_out(scope, e.name)]
    match scope:
        case scopes.Global():
            return [[(i, ()) for i, _ in kept]]
        case scopes.PerTensor():
            return [[(i, ())] for i, _ in kept]
        case scopes.PerElement():
            return [[(i, at)] for i, e in kept for at in np.ndindex(e.shape)]
        case scopes.PerGroup(patterns=()):
            groups = sorted({e.group or 0 for _, e in kept})
            return [[(i, ()) for i, e in kept if e.group == g] for g in range(groups[-1] + 1)]
        case scopes.PerGroup(patterns=patterns):
            return [[(i, ()) for i, e in kept if _first(patterns, e.name) == p] for p in patterns]
        case scopes.PerUnit(axis=axis):
            return [[(i, at)] for i, e in kept for at in _units(e, axis)]
    raise NotImplementedError(type(scope).__name__)


def _units(entry: scopes.Entry, axis: int | None) -> list[Index]:
    """Index every output unit of a tensor: ``w[:, u]`` for axis 1, with the inputs of its own group only."""
    if len(entry.shape) <= 1:
        return [()]
    at = entry.unit_axis if axis is None else axis % len(entry.shape)
    groups = entry.unit_groups if axis is None else 1
    everything: tuple[Any, ...] = (slice(None),) * at
    if groups == 1:
        return [(*everything, u) for u in range(entry.shape[at])]
    run = entry.shape[0] // groups
    return [(slice(g * run, (g + 1) * run), u) for g in range(groups) for u in range(entry.shape[1])]


def _limits(
    threshold: thresholds.Threshold, block: int, weight: Long | None, lr: float | None, step: int
) -> tuple[float, float]:
    match threshold:
        case thresholds.Constant(value=tuple() as each):
            t = each[block]
        case thresholds.Constant(value=float() as t):
            pass
        case thresholds.Bounds(low=low, high=high):
            return low, high
        case thresholds.Schedule(function=function):
            t = function(step)
        case thresholds.Warmup():
            t = at_step(threshold, step)
        case thresholds.Relative(ratio=ratio, floor=floor):
            assert weight is not None
            t = float(ratio * max(weight, Long(floor)))
        case thresholds.Trust(eta=eta, floor=floor):
            assert weight is not None
            assert lr is not None
            t = float(eta * max(weight, Long(floor)) / lr) if lr > 0 else np.inf
        case _:
            raise NotImplementedError(type(threshold).__name__)
    return -t, t


def at_step(value: float | thresholds.Warmup, step: int) -> float:
    """Return a number that may move along a line or half a cosine, as it is at this step.

    >>> [at_step(thresholds.Linear(10, 2, 4, after=2), step) for step in (0, 2, 4, 9)]
    [10.0, 10.0, 6.0, 2.0]
    """
    match value:
        case thresholds.Linear(start=a, end=b, steps=n, after=s):
            return a + (b - a) * min(1, max(0, step - s) / n)
        case thresholds.Cosine(start=a, end=b, steps=n, after=s):
            return a + (b - a) * float(1 - np.cos(np.pi * min(1, max(0, step - s) / n))) / 2
        case float() | int():
            return value
    raise NotImplementedError(type(value).__name__)


def _clamped(values: npt.NDArray[Any], t: float) -> npt.NDArray[Any]:
    """Bring what is larger than t down to it; the sign, or the angle, stays."""
    size = np.abs(values)
    return values * np.where(size > t, t / np.where(size == 0, 1, size), 1.0)


def _factor(rescale: rescales.Rescale, n: Long, t: float, step: int) -> Long:
    if t == np.inf or n == 0:
        return Long(1)
    return Long(_phi(rescale, Long(t) if float(n) == t else n, Long(t), step))  # equal as float64, in which limits are


def _phi(rescale: rescales.Rescale, n: Long, t: Long, step: int) -> float | Long:
    match rescale:
        case rescales.Hard() | rescales.Clamp():
            return t / n if n >= t else 1.0
        case rescales.Normalize():
            return t / n
        case rescales.Soft(k=k):
            return (1 + (n / t) ** k) ** (-1 / Long(k)) if n < t else t / n * (1 + (t / n) ** k) ** (-1 / Long(k))
        case rescales.Drop():
            return 0.0 if n > t else 1.0
        case rescales.Band(low=edge, max_gain=gain):
            low = at_step(edge, step)
            return t / n if n > t else min(gain, low * t / n) if n < low * t else 1.0
    raise NotImplementedError(type(rescale).__name__)


def _left_out(scope: scopes.Scope, name: str) -> bool:
    return _first(scope.exclude, name) is not None


def _first(patterns: Sequence[str], name: str) -> str | None:
    return next((p for p in patterns if fnmatchcase(name, p)), None)
