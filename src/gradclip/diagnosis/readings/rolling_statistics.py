"""The rolling median of a series and its spread: what was usual just before each of its numbers."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["WINDOW", "RollingStatistics", "median_and_spread", "rolling_statistics"]

WINDOW: Final = 128
"""Steps that count as the recent past; OLMo-core's SkipStepOptimizer looks back as far."""
STRIDE: Final = 16
"""Once the window is full it moves on in strides: its middle changes little in them, and long runs stay quick."""
SIGMA: Final = 1.4826
"""Times the median absolute deviation: the standard deviation of normal numbers."""

Floats = NDArray[np.float64]


class RollingStatistics(NamedTuple):
    """For each number, what its recent past was like; NaN where that was too short."""

    median: Floats
    spread: Floats
    """As a standard deviation that outliers do not move."""


def median_and_spread(values: Floats) -> tuple[float, float]:
    """Return the median, and the median absolute deviation as a standard deviation.

    >>> median_and_spread(np.array([1.0, 2.0, 3.0, 4.0, 1000.0]))
    (3.0, 1.4826)
    """
    if not len(values):
        return float("nan"), float("nan")
    middle = float(np.median(values))
    return middle, SIGMA * float(np.median(np.abs(values - middle)))


def rolling_statistics(values: Floats, least: int) -> RollingStatistics:
    """Look back from each number of a series at up to ``WINDOW`` numbers before it.

    Args:
        values: finite numbers.
        least: so many must lie before.

    >>> rolling_statistics(np.array([1.0, 1.0, 1.0, 9.0]), least=2).median
    array([nan, nan,  1.,  1.])
    """
    at = np.arange(len(values))
    ends, which = np.unique(np.where(at < WINDOW, at, at - at % STRIDE), return_inverse=True)
    nothing = (float("nan"), float("nan"))
    found = [median_and_spread(values[max(0, end - WINDOW) : end]) if end >= least else nothing for end in ends.tolist()]
    columns = np.array(found, dtype=np.float64).reshape(-1, 2)[which]
    return RollingStatistics(columns[:, 0], columns[:, 1])
