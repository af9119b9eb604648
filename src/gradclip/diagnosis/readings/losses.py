"""The losses of a run: all of them, where they ended, and where those of two runs began to differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gradclip.diagnosis.readings.run_data import Floats, OptimizerRun
from gradclip.diagnosis.readings.weak_cache import weakly_cached
from gradclip.runs import Steps

__all__ = ["Losses", "final_loss", "first_difference", "losses_of"]

START: Final = 10
"""Losses whose median is where the run began."""


@dataclass(frozen=True, eq=False)
class Losses:
    """The losses that were measured; one that is no finite number is Inf here."""

    steps: NDArray[np.int64]
    values: Floats

    @property
    def start(self) -> float:
        """Where the loss began."""
        return float(np.median(self.values[:START])) if len(self.values) else float("nan")


@weakly_cached
def losses_of(optimizer: OptimizerRun) -> Losses:
    """Return the losses of an optimizer's steps."""
    there = ~optimizer.steps.missing["loss"]
    values = optimizer.steps.loss[there]
    return Losses(optimizer.steps.step[there], np.where(np.isfinite(values), values, np.inf))


def final_loss(steps: Steps, first: int | None = None) -> float:
    """Return the mean loss of the last tenth; not finite where one of these is not, NaN without a loss.

    Args:
        steps: of one optimizer.
        first: look only at so many of the first losses, to compare with a run that ended there.
    """
    losses = steps.measured("loss")[:first]
    tenth = losses[-max(1, len(losses) // 10) :]
    return float(tenth.mean()) if len(tenth) else math.nan


def first_difference(one: Steps, other: Steps) -> int | None:
    """Return the first step at which two runs had different losses or norms before clipping; None if they are alike to the bit.

    A run that ended earlier is alike as far as it went.
    """
    length = min(len(one), len(other))
    differ = np.zeros(length, dtype=np.bool_)
    for name in ("loss", "norm"):
        a, b = getattr(one, name)[:length], getattr(other, name)[:length]
        differ |= ~np.equal(a, b) & ~(np.isnan(a) & np.isnan(b))
    at = np.flatnonzero(differ)
    return int(one.step[at[0]]) if len(at) else None
