"""Which layer's gradient was the largest at a step."""

from __future__ import annotations

import numpy as np

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.readings.run_data import OptimizerRun

__all__ = ["largest_layer"]


def largest_layer(optimizer: OptimizerRun, step: int) -> tuple[Evidence, ...]:
    """Return the largest finite norm of a layer at a step; nothing where the layers of that step were not kept."""
    layers = optimizer.layers
    rows = np.flatnonzero(layers.steps == step)
    if not len(rows):
        return ()
    norms = np.where(np.isfinite(layers.norms[rows[0]]), layers.norms[rows[0]], -1.0)
    if not len(norms) or norms.max() <= 0:
        return ()
    worst = int(norms.argmax())
    return (Evidence("the largest tensor's gradient norm", float(norms[worst]), step=step, tensor=layers.groups[worst].name),)
