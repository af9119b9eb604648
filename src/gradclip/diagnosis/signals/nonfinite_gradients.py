"""Which gradients held a NaN or Inf at a step, and where in the model they lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from gradclip.diagnosis.formatting import plural
from gradclip.diagnosis.readings.run_data import OptimizerRun

__all__ = ["NonfiniteGradients", "nonfinite_gradients_at"]

NAMED: Final = 3
"""So many names are read; more are counted."""


@dataclass(frozen=True)
class NonfiniteGradients:
    """The gradients of one step that held a NaN or Inf; without names where the tensors of that step were not kept."""

    count: int
    names: tuple[str, ...] = ()
    whole: bool = False
    """Whether no gradient of the step was finite."""
    sound: str = ""
    """The first tensor behind the last of them in the order of the model, if there is one with a gradient."""
    sound_norm: float = math.nan

    def __str__(self) -> str:
        """Return them in words.

        >>> print(NonfiniteGradients(5, ("a.weight", "a.bias", "b.weight", "b.bias", "c.weight")))
        a.weight, a.bias, b.weight and 2 more
        """
        if self.whole:
            return "every tensor"
        if not self.names:
            return plural(self.count, "tensor") if self.count else "some tensor"
        more = len(self.names) - NAMED
        return ", ".join(self.names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def nonfinite_gradients_at(optimizer: OptimizerRun, step: int) -> NonfiniteGradients:
    """Return which gradients held a NaN or Inf at a step."""
    layers = optimizer.layers
    count = int(optimizer.steps.nonfinite[optimizer.steps.step == step].max(initial=0))
    rows = np.flatnonzero(layers.steps == step)
    if not len(rows):
        return NonfiniteGradients(count)
    bad, there = layers.nonfinite[rows[0]], ~layers.missing[rows[0]]
    if not bad.any():
        return NonfiniteGradients(count)
    names = tuple(group.name for group, one in zip(layers.groups, bad, strict=True) if one)
    behind = np.flatnonzero(there & (np.arange(len(bad)) > np.flatnonzero(bad)[-1]))
    whole = bool(bad[there].all())
    if not len(behind):
        return NonfiniteGradients(count or len(names), names, whole)
    return NonfiniteGradients(
        count or len(names), names, whole, layers.groups[behind[0]].name, float(layers.norms[rows[0], behind[0]])
    )
