"""How far a loss has come: without it, nobody can say whether strange gradients do any harm."""

from __future__ import annotations

from typing import Final

import numpy as np

from gradclip.diagnosis.readings.rolling_statistics import middle_and_spread
from gradclip.diagnosis.readings.run_data import Gathered, Optimizer

__all__ = ["STALLED", "has_learned", "progress", "stalls"]

STALLED: Final = 0.05
"""A loss that has lost less than this share of its first size has learned little more than the mean of its targets."""
LEARNED: Final = 0.9
"""Of its first size: hardly anything is left of such a loss, nor of the gradient whose mean could be bent."""
FEWEST: Final = 50
"""Measured losses; with fewer, the first and the last tenth are a handful of batches."""
NOISE: Final = 3.0
"""A first loss within so many deviations of zero has no size of its own to lose a share of: rewards, critics."""


def progress(run: Gathered, optimizer: Optimizer) -> float | None:
    """Return which share of its first size the loss has lost, by medians of its first and last tenth.

    None where that says nothing: too few losses, one that ended as no number, one that swings around zero, or several
    optimizers, whose losses may work against each other.
    """
    losses = optimizer.steps.loss[~optimizer.steps.missing["loss"]]
    if len(losses) < FEWEST or len(run.optimizers) > 1:
        return None
    tenth = len(losses) // 10
    first, last = losses[:tenth], losses[-tenth:]
    middle = float(np.median(first))
    level, spread = middle_and_spread(last)
    if not (np.isfinite(first).all() and np.isfinite(last).all()) or abs(middle) <= NOISE * spread:
        return None
    return (middle - level) / abs(middle)


def stalls(run: Gathered, optimizer: Optimizer) -> bool | None:
    """Return whether the loss hardly fell; None where that cannot be told."""
    share = progress(run, optimizer)
    return None if share is None else share < STALLED


def has_learned(run: Gathered, optimizer: Optimizer) -> bool:
    """Return whether next to nothing is left of the loss."""
    share = progress(run, optimizer)
    return share is not None and share >= LEARNED
