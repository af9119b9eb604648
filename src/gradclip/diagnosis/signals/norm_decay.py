"""How steeply norms fall from the last layer to the first: a robust line through their logarithms, at each step."""

from __future__ import annotations

from typing import Final

import numpy as np

from gradclip.diagnosis.readings.run_data import Floats
from gradclip.diagnosis.signals.weight_matrices import Matrices

__all__ = ["norm_decay"]

ORDERLY: Final = 0.9
"""Of all pairs of layers, those in which the one nearer to the loss has the larger norm: so an exponential fall is told from a
layer or two that are small. Deep nets whose gradient vanishes show .98 and more; nets that learn mostly less than .9."""


def norm_decay(layers: Matrices) -> Floats:
    """Return the fall from the last layer to the first at each step, in powers of ten; 0 where there is no orderly one.

    The slope is the median over all pairs of layers (Theil and Sen), so single layers, such as an embedding, do not move it.
    It is taken of the norms and of the root mean squares, and the smaller fall counts: neither unit knows how large a gradient
    a layer of its size should have. Zeros, which have no logarithm, are left out.
    """
    logs = np.log10(np.where(layers.norms > 0, layers.norms, np.nan))
    return np.minimum(_lines(logs), _lines(logs - np.log10(np.maximum(layers.sizes, 1)) / 2))


def _lines(logs: Floats) -> Floats:
    """The rise of a robust line from the first column to the last, row by row."""
    width = logs.shape[1]
    near, far = np.triu_indices(width, 1)
    slopes = (logs[:, far] - logs[:, near]) / (far - near)
    known = np.isfinite(slopes)
    count = known.sum(axis=1)
    usable = count > 0
    rises = np.zeros(len(logs))
    rises[usable] = np.nanmedian(slopes[usable], axis=1) * (width - 1)
    return np.where((slopes > 0).sum(axis=1) >= ORDERLY * np.maximum(count, 1), np.maximum(rises, 0.0), 0.0)
