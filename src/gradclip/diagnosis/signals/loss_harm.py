"""Whether a step did harm: the loss, or without one a NaN that reached the weights, was worse after it than before."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.readings.losses import Losses, losses_of
from gradclip.diagnosis.readings.rolling_statistics import median_and_spread
from gradclip.diagnosis.readings.run_data import OptimizerRun

__all__ = ["SOON", "applied_nonfinite", "harm_after"]

SOON: Final = 50
"""Steps within which a loss that was only shaken is back; the spikes that large runs recover from by themselves are shorter."""
BEFORE: Final = 32
"""Losses before a step that say what was usual."""
FEWEST: Final = 6
"""Losses after a step below which nothing can be said of them, unless they are no numbers."""
SIGMAS: Final = 5.0
"""The median of ``SOON / 2`` losses varies about five times less than one loss: chance does not bring it so far out."""
LOST: Final = 0.1
"""Of what the loss had gained since the start; less is no damage worth a sentence."""
DOUBLE: Final = 2.0
"""Times the rise that a step itself, or a tenth of those before it, had already: what follows must be the step's own doing."""

Floats = NDArray[np.float64]


def applied_nonfinite(optimizer: OptimizerRun) -> NDArray[np.bool_]:
    """Return the steps at which a NaN or Inf reached the weights: not skipped, and not set to 0 by a clipping.

    What came out of the clipping has a finite norm where every gradient was dropped or its NaN removed.
    """
    steps = optimizer.steps
    cleaned = ~steps.missing["clipped_norm"] & np.isfinite(steps.clipped_norm)
    return optimizer.bad & ~steps.skipped & ~cleaned


def harm_after(optimizer: OptimizerRun, step: int) -> Evidence | None:
    """Return what the loss was from a step on, where it is clearly worse than before and does not come back soon.

    The second half of the next ``SOON`` steps is held against the ``BEFORE`` losses up to the step, and against the loss of
    the step itself, which its weights had before it moved them: where that is as bad already, it was other data (a new task,
    a reward found), and not the step. Without losses only gradients that are no numbers tell.
    """
    losses = losses_of(optimizer)
    old = losses.values[losses.steps < step][-BEFORE:]
    old = old[np.isfinite(old)]
    new = losses.values[(losses.steps > step) & (losses.steps <= step + SOON)]
    if len(old) and len(new):
        return _worse(losses, old, new[len(new) // 2 :], step)
    later = (optimizer.steps.step > step) & (optimizer.steps.step <= step + SOON)
    bad = applied_nonfinite(optimizer) & later
    return Evidence("gradient norm", float("nan"), step=int(optimizer.steps.step[bad][0])) if bad.any() else None


def _worse(losses: Losses, old: Floats, late: Floats, step: int) -> Evidence | None:
    middle, spread = median_and_spread(old)
    gained = abs(losses.start - middle) if np.isfinite(losses.start) else 0.0
    limit = middle + max(SIGMAS * spread, LOST * gained, LOST * abs(middle))
    now = losses.values[(losses.steps == step) & np.isfinite(losses.values)].tolist()
    limit = max(limit, middle + DOUBLE * (max([float(np.percentile(old, 90)), *now]) - middle))
    level = float(np.median(late))
    if not level > limit or (np.isfinite(level) and 2 * len(late) < FEWEST):
        return None
    return Evidence(f"median loss in the {SOON} steps after step {step:,}", level, limit)
