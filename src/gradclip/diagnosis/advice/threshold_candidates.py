"""Thresholds that a run's norms offer, and how often each would clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["PERCENTILES", "Candidate", "candidates", "finite_norms", "last_half", "would_clip"]

PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True)
class Candidate:
    """A percentile of the norms before clipping, as a threshold."""

    percentile: float
    threshold: float
    share: float
    """Of all steps, those it would clip."""
    late_threshold: float
    """The same percentile of the last half of the steps."""
    late_share: float
    """Of the last half, those that ``threshold`` would clip."""


def finite_norms(norms: ArrayLike) -> NDArray[np.float64]:
    """Return the norms that are numbers; a NaN or Inf is skipped, never clipped."""
    values = np.asarray(norms, dtype=np.float64)
    return values[np.isfinite(values)]


def last_half(norms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the second half of a series: norms of the first steps are rarely those of the rest."""
    return norms[len(norms) // 2 :]


def would_clip(norms: NDArray[np.float64], threshold: float) -> float:
    """Return the share of steps whose norm is above a threshold.

    >>> would_clip(np.array([1.0, 2.0, 3.0, 4.0]), 3.0)
    0.25
    """
    return float((norms > threshold).mean()) if len(norms) else 0.0


def candidates(norms: ArrayLike, percentiles: Sequence[float] = PERCENTILES) -> list[Candidate]:
    """Return a threshold for each percentile of a run's norms; none without a finite norm.

    >>> [(c.threshold, c.share) for c in candidates(range(101), [90.0])]
    [(90.0, 0.09900990099009901)]
    """
    every = finite_norms(norms)
    if not len(every):
        return []
    late = last_half(every)
    found = zip(percentiles, np.percentile(every, percentiles).tolist(), np.percentile(late, percentiles).tolist(), strict=True)
    return [Candidate(p, limit, would_clip(every, limit), then, would_clip(late, limit)) for p, limit, then in found]
