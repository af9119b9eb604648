"""Clipping of all gradients of an optimizer to one constant norm: what a run's norms can be held against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gradclip.clipping import Clipping
from gradclip.diagnosis.readings.event_order import calls_of, orders_of
from gradclip.diagnosis.readings.run_data import Floats, OptimizerRun, RunData
from gradclip.errors import GradclipError
from gradclip.norms import L2
from gradclip.rescales import Hard
from gradclip.runs import Event
from gradclip.scopes import Global
from gradclip.thresholds import Constant

__all__ = ["GlobalNormClipping", "global_norm_clipping_of"]

TORCH: Final = "clip_grad_norm_"
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
    orders = {order.events: order for order in orders_of(run, optimizer.number)}  # most steps of a run go alike
    calls = [call for order in orders.values() for call in calls_of(order.events) if not set(call).isdisjoint(order.clips)]
    kinds = {tuple((*clip[:6], clip.threshold == math.inf) for clip in call) for call in calls}  # from any place, to any limit
    if len(kinds) > 1 or not (_is_global_norm(calls[0]) if calls else _is_function(str(run.meta.get("clip") or TORCH))):
        return None
    lacking = steps.missing["norm"] | steps.missing["threshold"] | steps.missing["clipped"]
    rows = np.flatnonzero(~lacking & np.isfinite(steps.norm) & ~steps.skipped)
    limits = np.unique(steps.measured("threshold"))
    if len(rows) < NEARLY_ALL * len(steps) or len(limits) != 1 or not 0 < limits[0] < np.inf:
        return None
    return GlobalNormClipping(float(limits[0]), rows, steps.norm[rows], calls[0][0].place if calls else "")


def _is_global_norm(call: Sequence[Event]) -> bool:
    """Whether a call is about the L2 norm of all gradients of one optimizer, and a constant."""
    clip = call[0]
    whole = len(call) == 1 and clip.optimizer is not None and clip.reached == clip.owned
    return whole and clip.norm in (None, 2.0) and clip.threshold != math.inf and _is_function(clip.function)


def _is_function(name: str) -> bool:
    if name == TORCH:
        return True
    try:
        clipping = Clipping.parse(name)
    except (GradclipError, ValueError):
        return False
    return (
        isinstance(clipping, Clipping)
        and clipping.scope == Global()
        and clipping.norm == L2
        and isinstance(clipping.threshold, Constant)
        and isinstance(clipping.rescale, Hard)
    )
