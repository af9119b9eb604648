"""What a run file says of an optimizer itself: its class, the eps that bounds its steps, where it steps, and what is frozen."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from gradclip.diagnosis.readings.run_data import Floats, OptimizerRun, RunData

__all__ = ["adaptive_eps", "frozen_places", "is_adaptive", "steps_in_backward"]

WITHOUT_BETAS: Final = ("RMSprop", "Adagrad")
"""Optimizers that divide by the size of the gradient; the others are known by their ``betas`` and ``eps``: Adam and its kin."""


def is_adaptive(run: RunData, optimizer: OptimizerRun) -> bool | None:
    """Return whether an optimizer divides by the size of its gradients, so that a constant factor cancels; None if unknown."""
    settings = _settings(run, optimizer)
    return _divides(settings) if settings.get("class") else None


def adaptive_eps(run: RunData, optimizer: OptimizerRun) -> Floats:
    """Return the eps of each layer's param group (the smallest of them); NaN where there is none, or no adaptive optimizer.

    An adaptive optimizer divides by the root mean square of past gradients plus eps: below eps, gradients make small steps.
    """
    settings = _settings(run, optimizer)
    groups = settings.get("groups")
    if not _divides(settings) or not isinstance(groups, list):
        return np.full(len(optimizer.layers.groups), np.nan)
    eps = dict(enumerate(map(_eps, groups)))
    of_tensors = [eps.get(tensor.group, np.nan) for tensor in optimizer.tensor_infos]
    return np.array([min(of_tensors[member] for member in group.members) for group in optimizer.layers.groups], np.float64)


def steps_in_backward(run: RunData, optimizer: OptimizerRun) -> bool:
    """Return whether optimizers step inside ``backward``, each as soon as its gradient is there."""
    return _settings(run, optimizer).get("in_backward") is True


def frozen_places(run: RunData, optimizer: OptimizerRun) -> frozenset[str] | None:
    """Return the places of the tensors that asked for no gradient; None in a file that does not say."""
    noted = run.meta.get("frozen")
    places = noted.get(str(optimizer.number)) if isinstance(noted, dict) else None
    return frozenset(map(str, places)) if isinstance(places, list) else None


def _settings(run: RunData, optimizer: OptimizerRun) -> dict[str, Any]:
    every = run.meta.get("optimizers")
    found = every.get(str(optimizer.number)) if isinstance(every, dict) else None
    return found if isinstance(found, dict) else {}


def _divides(settings: dict[str, Any]) -> bool:
    groups = settings.get("groups")
    kin = isinstance(groups, list) and any(isinstance(group, dict) and {"eps", "betas"} <= set(group) for group in groups)
    return kin or settings.get("class") in WITHOUT_BETAS


def _eps(group: object) -> float:
    eps = group.get("eps") if isinstance(group, dict) else None
    return float(eps) if isinstance(eps, (int, float)) and eps > 0 else np.nan
