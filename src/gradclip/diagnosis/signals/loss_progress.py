"""How far a loss has come: without it, nobody can say whether strange gradients do any harm."""

from __future__ import annotations

from typing import Final

import numpy as np

from gradclip.diagnosis.readings.rolling_statistics import median_and_spread
from gradclip.diagnosis.readings.run_data import Floats, OptimizerRun, RunData

__all__ = ["STALLED", "has_learned", "loss_fell", "progress", "stalls"]

STALLED: Final = 0.05
"""A loss that has lost less than this share of its first size has learned little more than the mean of its targets."""
LEARNED: Final = 0.9
"""Of its first size: hardly anything is left of such a loss, nor of the gradient whose mean could be bent."""
FEWEST: Final = 50
"""Measured losses; with fewer, the first and the last tenth are a handful of batches."""
NOISE: Final = 3.0
"""A first loss within so many deviations of zero has no size of its own to lose a share of: rewards, critics."""
FELL: Final = 0.05
"""Of the first loss: one that fell by less over a whole run has learned next to nothing."""


def progress(run: RunData, optimizer: OptimizerRun) -> float | None:
    """Return which share of its first size the loss has lost, by medians of its first and last tenth.

    None where that says nothing: too few losses, one that ended as no number, one that swings around zero, or several
    optimizers, whose losses may work against each other.
    """
    losses = optimizer.steps.measured("loss")
    if len(losses) < FEWEST or len(run.optimizers) > 1:
        return None
    tenth = len(losses) // 10
    first, last = losses[:tenth], losses[-tenth:]
    middle = float(np.median(first))
    level, spread = median_and_spread(last)
    if not (np.isfinite(first).all() and np.isfinite(last).all()) or abs(middle) <= NOISE * spread:
        return None
    return (middle - level) / abs(middle)


def stalls(run: RunData, optimizer: OptimizerRun) -> bool | None:
    """Return whether the loss hardly fell; None where that cannot be told."""
    share = progress(run, optimizer)
    return None if share is None else share < STALLED


def has_learned(run: RunData, optimizer: OptimizerRun) -> bool:
    """Return whether next to nothing is left of the loss."""
    share = progress(run, optimizer)
    return share is not None and share >= LEARNED


def loss_fell(losses: Floats) -> bool:
    """Return whether a loss ended below where it began, by more than next to nothing.

    >>> loss_fell(np.array([2.0] * 30)), loss_fell(np.linspace(2.0, 1.0, 30))
    (False, True)
    """
    begun = min(float(losses[0]), float(np.median(losses[:10])))
    ended = float(np.median(losses[-max(1, len(losses) // 3) :]))
    return ended < begun - FELL * abs(begun)
