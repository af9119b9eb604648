"""Thin long series for a chart without losing what matters: extremes, both ends, and where a NaN or Inf is."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["thin", "thin_matrix"]

FEWEST: Final = 8
"""Two ends, and for one bucket its smallest, its largest, and the first NaN, +Inf and -Inf."""


def thin(values: ArrayLike, most: int) -> NDArray[np.int64]:
    """Return which points to draw: at most ``most`` indices, in order.

    The series is cut into buckets of equal length; of each, the smallest and the largest finite value are kept, and the first
    NaN, the first +Inf and the first -Inf. Both ends are kept.

    Args:
        values: the series.
        most: how many points to keep, at least 8.

    >>> thin([0, 1, 9, 1, 0, 1, -9, 1, 0, 1, 0], 8)
    array([ 0,  2,  5,  6,  8,  9, 10])
    """
    if most < FEWEST:
        raise ValueError(f"a series cannot be thinned to {most} points; keep at least {FEWEST}")
    series = np.asarray(values, dtype=np.float64)
    if len(series) <= most:
        return np.arange(len(series))
    odd = [mask for mask in (np.isnan(series), np.isposinf(series), np.isneginf(series)) if mask.any()]
    finite = np.isfinite(series)
    buckets = (most - 2) // (2 + len(odd))
    lowest = _first_smallest(np.where(finite, series, np.inf), buckets)
    highest = _first_smallest(np.where(finite, -series, np.inf), buckets)
    picked = np.concatenate([lowest, highest])
    kept = [picked[finite[picked]]]
    for mask in odd:
        first = _first_smallest(np.where(mask, 0.0, 1.0), buckets)
        kept.append(first[mask[first]])
    return np.unique(np.concatenate([[0, len(series) - 1], *kept]))


def thin_matrix(steps: ArrayLike, matrix: ArrayLike, most: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return a step x tensor matrix with at most ``most`` rows: the largest value of every bucket, by its first step.

    A NaN in a bucket wins over everything else.

    >>> thin_matrix([0, 1, 2, 3], [[1.0, 5.0], [2.0, 4.0], [3.0, 3.0], [4.0, 2.0]], 2)
    (array([0, 2]), array([[2., 5.],
           [4., 3.]]))
    """
    if most < 1:
        raise ValueError(f"a matrix cannot be thinned to {most} rows; keep at least 1")
    labels, rows = np.asarray(steps, dtype=np.int64), np.asarray(matrix)
    if len(labels) <= most:
        return labels, rows
    starts = np.arange(0, len(labels), bucket_length(len(labels), most))
    return labels[starts], np.maximum.reduceat(rows, starts, axis=0)


def bucket_length(count: int, most: int) -> int:
    """Return how many of ``count`` points go into a bucket so that there are at most ``most`` buckets."""
    return max(1, -(-count // most))


def _first_smallest(series: NDArray[np.float64], buckets: int) -> NDArray[np.int64]:
    """Return, for each bucket, where its smallest value is; the last bucket may be shorter."""
    length = bucket_length(len(series), buckets)
    full = len(series) // length * length
    where: NDArray[np.int64] = series[:full].reshape(-1, length).argmin(axis=1) + np.arange(0, full, length)
    if full < len(series):
        where = np.append(where, full + series[full:].argmin())
    return where
