"""The fix that is a learning rate: the one that would move a layer by the usual part of its weights."""

from __future__ import annotations

from math import floor, log10
from typing import Final

import numpy as np

from gradclip.diagnosis.formatting import number
from gradclip.diagnosis.readings.run_data import OptimizerRun

__all__ = ["USUAL", "rate_fix"]

USUAL: Final = 1e-3
"""Update over weight, as most trainings that work have it (Karpathy, makemore part 3); DeepDiagnosis aims there, too."""


def rate_fix(optimizer: OptimizerRun, ratio: float) -> str:
    """Return a line that sets the learning rate by the usual ratio, to the nearest power of ten."""
    rates = optimizer.rates[np.isfinite(optimizer.rates)]
    highest = float(rates.max()) if rates.size else 0.0
    if highest <= 0 or not ratio > 0:
        return 'for group in optimizer.param_groups:\n    group["lr"] = 1e-3  # a usual first try; the rate was 0 or is unknown'
    better = 10.0 ** floor(log10(highest * USUAL / ratio) + 0.5)
    return (
        f'for group in optimizer.param_groups:\n    group["lr"] = {better:.0e}'
        f"  # it was {number(highest)}; this moves a typical layer by about 0.001 of its weights at a step"
    )
