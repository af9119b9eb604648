"""Steps that were clipped to a threshold that nobody can mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.readings.event_order import call_site_of, orders_of
from gradclip.diagnosis.readings.run_data import Floats, OptimizerRun, RunData
from gradclip.diagnosis.signals.clip_events import clips_of

__all__ = ["UnusableThreshold", "unusable_threshold_of"]


@dataclass(frozen=True)
class UnusableThreshold:
    """What the clipping was called with, and how often."""

    threshold: Evidence
    share: Evidence
    """Of the steps that were clipped and had a gradient."""
    count: int
    function: str
    where: str


def unusable_threshold_of(
    run: RunData, optimizer: OptimizerRun, unusable: Callable[[Floats], NDArray[np.bool_]]
) -> UnusableThreshold | None:
    """Return the thresholds in force that are ``unusable``, where a gradient met them; None if there is none."""
    steps = optimizer.steps
    met = ~steps.missing["clipped"] & ~steps.missing["threshold"] & ~steps.missing["norm"] & (steps.norm > 0) & ~steps.skipped
    places = np.flatnonzero(met & unusable(steps.threshold))
    if not len(places):
        return None
    first = int(steps.step[places[0]])
    clips = next(
        (clips for order in orders_of(run, optimizer.number) if order.step == first and (clips := clips_of(order))), []
    )
    return UnusableThreshold(
        Evidence("threshold", float(steps.threshold[places[0]]), 0.0, first),
        Evidence("share of clipped steps", len(places) / int(met.sum())),
        len(places),
        next((clip.function for clip in clips if clip.function), "clipping"),
        call_site_of(run, optimizer, "clip"),
    )
