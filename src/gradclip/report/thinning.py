"""Fewer points for a line, without losing what the eye looks for: its extremes and its gaps."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["MOST_POINTS", "Point", "thinned"]

MOST_POINTS = 2000

Point = tuple[float, float | None]
"""A place and a value; None is a gap in the line."""


def thinned(xs: Sequence[float], ys: Sequence[float | None], most: int = MOST_POINTS) -> list[Point]:
    """Keep at most ``most`` points: the ends, and of each stretch the smallest, the largest and one gap, in their order.

    NaN and Inf become gaps.

    >>> thinned(range(5), [1.0, 2.0, math.nan, 4.0, 5.0])
    [(0, 1.0), (1, 2.0), (2, None), (3, 4.0), (4, 5.0)]
    >>> thinned(range(100), [0.0] * 50 + [9.0] + [0.0] * 49, most=8)
    [(0, 0.0), (50, 9.0), (51, 0.0), (99, 0.0)]
    """
    points = [(x, _finite(y)) for x, y in zip(xs, ys, strict=True)]
    if len(points) <= most:
        return points
    stretches = max(1, (most - 2) // 3)
    kept = {0, len(points) - 1}
    for i in range(stretches):
        start, end = i * len(points) // stretches, (i + 1) * len(points) // stretches
        kept.update(_notable(points, range(start, end)))
    return [points[i] for i in sorted(kept)]


def _notable(points: Sequence[Point], places: range) -> set[int]:
    def height(i: int) -> float:
        value = points[i][1]
        assert value is not None
        return value

    there = [i for i in places if points[i][1] is not None]
    gaps = [i for i in places if points[i][1] is None]
    extremes = {min(there, key=height), max(there, key=height)} if there else set()
    return extremes | set(gaps[:1])


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
