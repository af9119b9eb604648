"""How far a step moves each layer, relative to its weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradclip.diagnosis.formatting import number
from gradclip.diagnosis.readings.run_data import Layers
from gradclip.report.charts import MUTED, Chart, Line, curves
from gradclip.report.table import Table
from gradclip.report.timeline import thinned_line

__all__ = ["GUIDE", "middle_ratios", "ratios"]

GUIDE = -3.0
"""log10 of the ratio that is usual (Karpathy, "A Recipe for Training Neural Networks" and makemore part 3)."""
FEW = 8
"""So many lines can be told apart by a legend."""
POINTS = 16_000
"""Of all lines together."""
DEPTH = ("#2f7ed8", "#a45bc9", "#d9622b")
"""From the first layer to the last; at least 3:1 on the light and on the dark page."""


def ratios(layers: Layers | None) -> Chart | None:
    """Draw log10 of update norm over weight norm, a line for each layer; None where it was not recorded."""
    if layers is None:
        return None
    logs = _logs(layers)
    there = np.flatnonzero(np.isfinite(logs).any(axis=0))
    if not len(there):
        return None
    lines = [_line(layers, logs, int(i), place, len(there)) for place, i in enumerate(there)]
    chart = curves("Update-to-weight ratio", _see(layers, len(there)), lines, y="log10 of update / weight", log=False)
    chart.figure["layout"] |= {"showlegend": len(there) <= FEW, "hovermode": "closest", "shapes": [_guide()]}
    for trace in chart.figure["data"]:
        trace |= {"hovertemplate": "step %{x}<br>10<sup>%{y:.2f}</sup>"}
        if len(there) > FEW:
            trace |= {"opacity": 0.7, "line": trace["line"] | {"width": 1}}
    return replace(chart, numbers=_table(layers))


def middle_ratios(layers: Layers | None) -> list[float]:
    """Return the median ratio of each layer, NaN where there is none."""
    if layers is None:
        return []
    columns = (column[np.isfinite(column)] for column in layers.norms.T)
    return [float(np.median(column)) if len(column) else math.nan for column in columns]


def _logs(layers: Layers) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log10(layers.norms.astype(np.float64))
    return np.where(np.isfinite(logs), logs, np.nan)


def _line(layers: Layers, logs: NDArray[np.float64], i: int, place: int, count: int) -> Line:
    colour = _colour(place / max(count - 1, 1))
    line = thinned_line(layers.groups[i].name, layers.steps, logs[:, i], colour, POINTS // max(count, FEW))
    return replace(line, marked=False)


def _colour(depth: float) -> str:
    """Return the colour of a depth from 0 to 1.

    >>> _colour(0.0), _colour(1.0)
    ('#2f7ed8', '#d9622b')
    """
    place = depth * (len(DEPTH) - 1)
    first = min(int(place), len(DEPTH) - 2)
    pairs = zip(_parts(DEPTH[first]), _parts(DEPTH[first + 1]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (place - first)):02x}" for a, b in pairs)


def _parts(colour: str) -> Sequence[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _guide() -> dict[str, Any]:
    return {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": GUIDE, "y1": GUIDE,
        "line": {"color": MUTED, "width": 1.5, "dash": "dash"},
    }  # fmt: skip


def _see(layers: Layers, count: int) -> str:
    middles = [ratio for ratio in middle_ratios(layers) if ratio > 0]
    near = sum(abs(math.log10(ratio) - GUIDE) <= 1 for ratio in middles)
    see = f"The dashed line at −3 is usual; the medians of {near} of {len(middles)} layers are within a factor of 10 of it."
    return see + (" From the first layer in blue to the last in orange; point at a line for its name." if count > FEW else "")


def _table(layers: Layers) -> Table:
    columns = ("layer", "first", "median", "largest", "last")
    rows = []
    for group, values, middle in zip(layers.groups, layers.norms.T, middle_ratios(layers), strict=True):
        finite = values[np.isfinite(values)]
        shown = (finite[0], middle, finite.max(), finite[-1]) if len(finite) else (math.nan,) * 4
        rows.append((group.name, *(number(float(value)) if len(finite) else "–" for value in shown)))
    return Table("Update norm / weight norm, layer by layer", columns, rows, frozenset(range(1, 5)))
