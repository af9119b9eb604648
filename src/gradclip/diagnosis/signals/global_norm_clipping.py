"""Clipping of all gradients of an optimizer to one constant norm: what a run's norms can be held against."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gradclip.clipping import Clipping
from gradclip.diagnosis.readings.event_order import call_site_of, orders_of
from gradclip.diagnosis.readings.run_data import Floats, OptimizerRun, RunData
from gradclip.errors import GradclipError
from gradclip.norms import L2
from gradclip.rescales import Hard
from gradclip.scopes import Global
from gradclip.thresholds import Constant

__all__ = ["GlobalNormClipping", "global_norm_clipping_of"]

NEARLY_ALL: Final = 0.9
"""Of the steps; a script that clips now and then has its reasons."""


@dataclass(frozen=True, eq=False)
class GlobalNormClipping:
    """What a constant threshold met."""

    threshold: float
    rows: NDArray[np.intp]
    """Places of its steps in the columns of the run."""
    norms: Floats
    """Before clipping, finite."""
    where: str
    """The place in the script, where it is known."""


def global_norm_clipping_of(run: RunData, optimizer: OptimizerRun) -> GlobalNormClipping | None:
    """Return the norms that one constant threshold met; None where the clipping is of any other kind.

    A threshold that moves, learns, is one of several, bounds elements or single tensors, or covers a part of the gradients is
    left alone: it acts by design, or its unit is not that of the norm.
    """
    steps = optimizer.steps
    kinds = {event.detail for order in orders_of(run, optimizer.number) for event in order.clips}
    if len(kinds) > 1 or not all(_is_global_norm(kind) for kind in kinds or {str(run.meta.get("clip") or "clip_grad_norm_")}):
        return None
    lacking = steps.missing["norm"] | steps.missing["threshold"] | steps.missing["clipped"]
    rows = np.flatnonzero(~lacking & np.isfinite(steps.norm) & ~steps.skipped)
    limits = np.unique(steps.threshold[~steps.missing["threshold"]])
    if len(rows) < NEARLY_ALL * len(steps) or len(limits) != 1 or not 0 < limits[0] < np.inf:
        return None
    return GlobalNormClipping(float(limits[0]), rows, steps.norm[rows], call_site_of(run, "clip", sorted(kinds)))


def _is_global_norm(detail: str) -> bool:
    """Whether a clip event is about the L2 norm of all gradients of one optimizer, and a constant."""
    kind = re.sub(r" \(optimizer \d+\)$", "", detail)
    if kind == "clip_grad_norm_":
        return True
    try:
        clipping = Clipping.parse(kind)
    except (GradclipError, ValueError):
        return False
    return (
        isinstance(clipping, Clipping)
        and clipping.scope == Global()
        and clipping.norm == L2
        and isinstance(clipping.threshold, Constant)
        and isinstance(clipping.rescale, Hard)
    )
