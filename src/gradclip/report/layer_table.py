"""Each layer of a run in a row."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gradclip.diagnosis.formatting import number, percent
from gradclip.diagnosis.readings.run_data import Layers
from gradclip.report.table import Table

__all__ = ["layer_table"]


def layer_table(layers: Layers) -> Table:
    """Sum each layer up in a row: its norms, its share of the whole, and its NaNs."""
    columns = ("layer", "tensors", "first", "median", "largest", "last", "share", "NaN or Inf")
    shares = _shares(layers)
    rows = [_row(layers, i, shares[i]) for i in range(len(layers.groups))]
    note = "Share: of the squared norm of all layers together, the mean over the steps."
    return Table("Norms before clipping, layer by layer", columns, rows, frozenset(range(1, 8)), [note])


def _row(layers: Layers, i: int, share: float) -> tuple[str, ...]:
    values = layers.norms[~layers.missing[:, i], i].astype(np.float64)
    finite = values[np.isfinite(values)]
    group = layers.groups[i]
    if not len(values):
        return group.name, str(len(group.members)), *["–"] * 5, "0"
    middle = (float(np.median(finite)), float(finite.max())) if len(finite) else (math.nan, math.nan)
    ends = (float(values[0]), *middle, float(values[-1]))
    bad = len(values) - len(finite)
    return group.name, str(len(group.members)), *map(number, ends), percent(share), f"{bad:,}"


def _shares(layers: Layers) -> NDArray[np.float64]:
    squares = np.square(layers.norms, dtype=np.float64)
    squares[~np.isfinite(squares)] = 0.0
    whole = squares.sum(axis=1, keepdims=True)
    counted = whole[:, 0] > 0
    return (squares[counted] / whole[counted]).mean(axis=0) if counted.any() else np.zeros(len(layers.groups))
