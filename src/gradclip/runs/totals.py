"""What the steps of a run come to, counted as they come: for the status line, the summary, and a run that is watched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Totals"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass
class Totals:
    """The steps so far."""

    steps: int = 0
    skipped: int = 0
    clipped: int = 0
    clip_attempts: int = 0
    """Steps at which some clipping ran."""
    nonfinite: int = 0
    """Steps that had a NaN or Inf in the gradients."""
    loss: float = math.nan
    first_loss: float = math.nan
    norm: float = math.nan
    largest: float = math.nan
    """The largest finite norm."""
    worst: str = ""
    """The tensor that had the largest part of it."""
    sharded: bool = False
    """Whether the norms are those of this process's shards alone: whole ones are known once the run is read."""

    def add(self, norms: Floats, losses: Floats, *, attempts: int, clipped: Flags, skipped: Flags, bad: Flags) -> int | None:
        """Count further steps.

        Args:
            norms: those that were measured, in their order.
            losses: the same of these.
            attempts: at how many steps some clipping ran.
            clipped: at which steps it changed something.
            skipped: which steps were skipped.
            bad: which steps had a NaN or Inf.

        Returns:
            The place of the largest norm, if it is larger than all before.
        """
        self.steps += len(bad)
        self.clip_attempts += attempts
        self.clipped += int(clipped.sum())
        self.skipped += int(skipped.sum())
        self.nonfinite += int(bad.sum())
        if len(losses):
            self.loss = float(losses[-1])
            self.first_loss = float(losses[0]) if math.isnan(self.first_loss) else self.first_loss
        if len(norms):
            self.norm = float(norms[-1])
        finite: Any = np.where(np.isfinite(norms), norms, -1.0)
        place = int(finite.argmax()) if len(finite) else -1
        if place < 0 or finite[place] < 0 or finite[place] <= self.largest:
            return None
        self.largest = float(finite[place])
        return place
