"""A line of eight heights, for terminals."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["sparkline"]

BARS = "▁▂▃▄▅▆▇█"
BAD, NOTHING = "×", " "


def sparkline(values: ArrayLike, width: int = 40, *, log: bool = False) -> str:
    """Draw values as bars, the largest of each stretch; a stretch with a NaN or Inf is a cross.

    >>> sparkline([1, 2, 3, 4, 5, 6, 7, 8]), sparkline([1.0, float("nan"), 8.0]), sparkline([1, 10, 100], log=True)
    ('▁▂▃▄▅▆▇█', '▁×█', '▁▅█')
    """
    series = np.asarray(values, dtype=np.float64)
    if not len(series):
        return ""
    with np.errstate(divide="ignore", invalid="ignore"):
        series = np.where(series == 0, -np.inf, np.log10(series)) if log else series
    stretches = np.array_split(series, min(width, len(series)))
    heights = [
        float(stretch.max()) if not (np.isnan(stretch) | np.isposinf(stretch)).any() else np.nan for stretch in stretches
    ]
    finite = [height for height in heights if np.isfinite(height)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    return "".join(_bar(height, low, high) for height in heights)


def _bar(height: float, low: float, high: float) -> str:
    if np.isnan(height):
        return BAD
    if np.isneginf(height):
        return NOTHING
    return BARS[round((height - low) / (high - low) * (len(BARS) - 1))] if high > low else BARS[len(BARS) // 2]
