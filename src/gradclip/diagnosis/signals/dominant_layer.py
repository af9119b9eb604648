"""One layer whose gradient is nearly the whole norm, so that a threshold for all gradients is a threshold for it alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gradclip.diagnosis.readings.run_data import Floats, Layers

__all__ = ["DominantLayer", "dominant_layer_of"]

FEWEST: Final = 10
"""Rows of norms that say which layer it usually is."""
LEFT: Final = 0.01
"""Of the whole norm, what the other layers make together: where they would need a threshold a hundred times smaller. In
sound nets the largest tensor leaves a tenth or more, so that the others count, too."""
USUALLY: Final = 0.5
"""Of the rows."""


@dataclass(frozen=True, eq=False)
class DominantLayer:
    """A layer that makes the norm, and what the others are beside it."""

    place: int
    name: str
    rows: NDArray[np.intp]
    """Those that were looked at: the second half, where all norms are finite."""
    whole: Floats
    """The norm of all layers together, at these rows."""
    others: Floats
    """The norm of the other layers together."""
    largest_other: Floats
    """The norm of the largest one of them."""

    @property
    def left(self) -> float:
        """What the other layers make of the norm, in the middle row."""
        return float(np.median(self.others / self.whole))


def dominant_layer_of(layers: Layers) -> DominantLayer | None:
    """Return the layer that is nearly the whole norm at most steps; None where no layer is, or the others have no gradient."""
    norms = np.where(layers.missing, 0.0, layers.norms.astype(np.float64))
    rows = np.flatnonzero(np.isfinite(norms).all(axis=1) & (norms > 0).any(axis=1))
    rows = rows[len(rows) // 2 :]
    if len(rows) < FEWEST or norms.shape[1] < 2:
        return None
    norms = norms[rows]
    place = int(np.bincount(norms.argmax(axis=1)).argmax())
    rest = np.delete(norms, place, axis=1)
    whole, others = (np.sqrt(np.square(part).sum(axis=1)) for part in (norms, rest))
    if (others <= LEFT * whole).mean() < USUALLY or not np.median(others) > 0:
        return None
    return DominantLayer(place, layers.groups[place].name, rows, whole, others, rest.max(axis=1))
