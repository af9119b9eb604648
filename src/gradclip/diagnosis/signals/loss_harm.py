"""Whether a run was worse off after a step than before it, as its loss tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.readings.rolling_statistics import middle_and_spread
from gradclip.diagnosis.readings.run_data import Optimizer
from gradclip.diagnosis.readings.weak_cache import once

__all__ = ["SOON", "Losses", "applied_bad", "harm_after", "losses_of"]

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
START: Final = 10
"""Losses whose median is where the run began."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Losses:
    """The losses that were measured; one that is no finite number is Inf here."""

    steps: NDArray[np.int64]
    values: Floats

    @property
    def start(self) -> float:
        """Where the loss began."""
        return float(np.median(self.values[:START])) if len(self.values) else float("nan")


@once
def losses_of(optimizer: Optimizer) -> Losses:
    """Return the losses of an optimizer's steps."""
    there = ~optimizer.steps.missing["loss"]
    values = optimizer.steps.loss[there]
    return Losses(optimizer.steps.step[there], np.where(np.isfinite(values), values, np.inf))


def applied_bad(optimizer: Optimizer) -> NDArray[np.bool_]:
    """Return the steps at which a NaN or Inf reached the weights: not skipped, and not set to 0 by a clipping.

    What came out of the clipping has a finite norm where every gradient was dropped or its NaN removed.
    """
    steps = optimizer.steps
    cleaned = ~steps.missing["clipped_norm"] & np.isfinite(steps.clipped_norm)
    return optimizer.bad & ~steps.skipped & ~cleaned


def harm_after(optimizer: Optimizer, step: int) -> Evidence | None:
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
    bad = applied_bad(optimizer) & later
    return Evidence("gradient norm", float("nan"), step=int(optimizer.steps.step[bad][0])) if bad.any() else None


def _worse(losses: Losses, old: Floats, late: Floats, step: int) -> Evidence | None:
    middle, spread = middle_and_spread(old)
    gained = abs(losses.start - middle) if np.isfinite(losses.start) else 0.0
    limit = middle + max(SIGMAS * spread, LOST * gained, LOST * abs(middle))
    now = losses.values[(losses.steps == step) & np.isfinite(losses.values)].tolist()
    limit = max(limit, middle + DOUBLE * (max([float(np.percentile(old, 90)), *now]) - middle))
    level = float(np.median(late))
    if not level > limit or (np.isfinite(level) and 2 * len(late) < FEWEST):
        return None
    return Evidence(f"median loss in the {SOON} steps after step {step:,}", level, limit)
