"""Where a loss ended, and where two runs parted."""

from __future__ import annotations

import math

import numpy as np

from gradclip.runs import Steps

__all__ = ["late_loss", "parted_at"]


def late_loss(steps: Steps, first: int | None = None) -> float:
    """Return the mean loss of the last tenth; not finite where one of these is not, NaN without a loss.

    Args:
        steps: of one optimizer.
        first: look only at so many of the first losses, to compare with a run that ended there.
    """
    losses = steps.loss[~steps.missing["loss"]][:first]
    tenth = losses[-max(1, len(losses) // 10) :]
    return float(tenth.mean()) if len(tenth) else math.nan


def parted_at(one: Steps, other: Steps) -> int | None:
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
