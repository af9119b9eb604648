"""How far a step moved a typical layer, relative to its weights."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradclip.diagnosis.readings.run_data import Layers, OptimizerRun

__all__ = ["Ratios", "typical_ratios"]

SMALL: Final = ("bias", "norm", "ln", "bn", "gain", "scale", "alpha", "beta", "gamma")
"""Names of tensors that are few numbers and often begin at 0 or 1: their ratio says nothing about the model."""

Floats = NDArray[np.float64]


class Ratios(NamedTuple):
    """The median over the layers, at each sampled step at which at least half of them moved or could have."""

    steps: NDArray[np.int64]
    values: Floats


def typical_ratios(optimizer: OptimizerRun) -> Ratios:
    """Return the median ratio over the layers that count: not frozen, not biases, with weights and a gradient."""
    layers = optimizer.ratios
    if layers is None or not len(layers.steps):
        return Ratios(np.zeros(0, np.int64), np.zeros(0))
    values = np.where(_counts(optimizer, layers), layers.norms.astype(np.float64), np.nan)
    values[~np.isfinite(values)] = np.nan
    enough = 2 * np.isfinite(values).sum(axis=1) >= max(1, int(np.isfinite(values).any(axis=0).sum()))
    enough &= np.isfinite(values).any(axis=1)
    return Ratios(layers.steps[enough], np.array([np.nanmedian(row) for row in values[enough]], dtype=np.float64))


def _counts(optimizer: OptimizerRun, layers: Layers) -> NDArray[np.bool_]:
    """Steps x layers: where a ratio says something."""
    large = np.array([not _is_small(group.name) for group in layers.groups], dtype=np.bool_)
    if not large.any():
        large[:] = True
    moved = ~layers.missing & large
    _, here, there = np.intersect1d(layers.steps, optimizer.layers.steps, assume_unique=True, return_indices=True)
    gradient = optimizer.layers.norms[there]
    moved[here] &= ~optimizer.layers.missing[there] & (gradient > 0)
    skipped = optimizer.steps.step[optimizer.steps.skipped]
    moved[np.isin(layers.steps, skipped)] = False
    return moved


def _is_small(name: str) -> bool:
    parts = name.lower().split(".")
    return parts[-1] in SMALL or any(part.startswith(SMALL[1:4]) or part.endswith("norm") for part in parts[:-1])
