"""Which layer had which norm at which step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradclip.diagnosis.formatting import number, plural, shorten
from gradclip.diagnosis.readings.layer_groups import common_prefix
from gradclip.diagnosis.readings.run_data import Layers
from gradclip.report.charts import Chart, text
from gradclip.report.layer_table import layer_table
from gradclip.runs import thin_matrix

__all__ = ["SCALE", "heatmap"]

COLUMNS = 400
"""Of the picture; a page shows no more."""
MARKS = 300
ROW = 17
"""Pixels of a layer."""
FEWEST = 5
"""Layers that there is always room for."""
BELOW = 52
"""Pixels from the cells down to the scale of colours."""

SCALE = (
    "#482475", "#414487", "#355f8d", "#2a788e", "#21918c", "#22a884", "#44bf70", "#7ad151", "#bddf26", "#fde725",
)  # fmt: skip
"""Viridis, whose lightness rises evenly for everyone; its darkest tenth is left out, for it would vanish on a dark page."""
BAD = "#d6336c"

LOWEST, HIGHEST = 0.5, 99.9
"""Percentiles of the norms at the ends of the colours; beyond, the colour stays."""


def heatmap(layers: Layers) -> Chart | None:
    """Draw log10 of the norm of every layer, in model order, from the first at the top; None without norms."""
    if not layers.norms.size:
        return None
    at, norms, missing = _thinned(layers)
    figure = _figure(layers, at, norms, missing)
    return Chart("Norms by layer", _see(layers, len(at)), figure, (), numbers=layer_table(layers))


def _thinned(layers: Layers) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.bool_]]:
    """At most ``COLUMNS`` steps: the largest norm of each stretch, a NaN or Inf before any number."""
    norms = np.where(layers.missing, np.float32(-1), np.where(layers.nonfinite, np.float32(np.nan), layers.norms))
    at, thinned = thin_matrix(layers.steps, norms, COLUMNS)
    return at, thinned, thinned == -1


def _figure(layers: Layers, at: NDArray[np.int64], norms: NDArray[Any], missing: NDArray[np.bool_]) -> dict[str, Any]:
    bad = np.isnan(norms)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(missing | bad, np.nan, np.log10(norms))
    low, high = _range(logs)
    shown = np.where(np.isneginf(logs), low, logs)
    count = len(layers.groups)
    clear = "rgba(0,0,0,0)"
    layout = {
        "height": 100 + _height(count), "margin": {"l": 60, "r": 8, "t": 8, "b": 92},
        "paper_bgcolor": clear, "plot_bgcolor": clear, "showlegend": False, "hovermode": "closest",
        "xaxis": {"title": {"text": "step"}, "zeroline": False, "showgrid": False},
        "yaxis": {
            "autorange": "reversed", "zeroline": False, "showgrid": False, "title": {"text": ""}, "tickmode": "array",
            "tickvals": list(range(count)), "ticktext": _labels(layers),
        },
        "meta": {"ground": "line"},
    }  # fmt: skip
    data = [_cells(at, shown, low, high), *_bad_cells(at, bad)]
    return {"data": data, "layout": layout}


def _labels(layers: Layers) -> list[str]:
    """The names without what all of them begin with, cut to fit."""
    names = [group.name for group in layers.groups]
    return [text(shorten(name.removeprefix(common_prefix(names)))) for name in names]


def _height(count: int) -> int:
    """Of the cells, in pixels."""
    return ROW * max(count, FEWEST)


def _range(logs: NDArray[Any]) -> tuple[float, float]:
    finite = logs[np.isfinite(logs)]
    if not len(finite):
        return -1.0, 0.0
    low, high = np.percentile(finite, [LOWEST, HIGHEST]).tolist()
    return (low, high) if high - low > 0.1 else (low - 0.05, low + 0.05)


def _cells(at: NDArray[np.int64], logs: NDArray[Any], low: float, high: float) -> dict[str, Any]:
    rows = logs.shape[1]
    return {
        "type": "heatmap", "x": at.tolist(), "y": list(range(rows)), "z": _rows(logs), "hoverongaps": False,
        "zmin": _digits(low), "zmax": _digits(high), "colorbar": _bar(low, high, rows),
        "colorscale": [[i / (len(SCALE) - 1), colour] for i, colour in enumerate(SCALE)],
        "hovertemplate": "step %{x}<br>log10 norm %{z:.2f}<extra>%{y}</extra>",
    }  # fmt: skip


def _bar(low: float, high: float, rows: int) -> dict[str, Any]:
    """The scale of colours, labelled at powers of ten, or at its ends where it holds fewer than two."""
    powers = range(math.ceil(low), math.floor(high) + 1, max(1, math.ceil((high - low) / 6)))
    ticks = [float(power) for power in powers] if len(powers) > 1 else [low, (low + high) / 2, high]
    labels = [f"10<sup>−{-power}</sup>" if power < 0 else f"10<sup>{power}</sup>" for power in powers]
    return {
        "orientation": "h", "thickness": 10, "len": 0.5, "outlinewidth": 0,
        "tickvals": ticks, "ticktext": labels if len(powers) > 1 else [number(10**tick) for tick in ticks],
        "x": 0, "xanchor": "left", "xpad": 0, "y": -BELOW / _height(rows), "yanchor": "top", "ypad": 0,
    }  # fmt: skip


def _bad_cells(at: NDArray[np.int64], bad: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Every cell with a NaN or Inf in one colour, and a cross where a stretch of them begins."""
    if not bad.any():
        return []
    before = np.vstack([np.zeros((1, bad.shape[1]), bool), bad[:-1]])
    columns, rows = np.nonzero(bad & ~before)
    hover = "step %{x}<br>NaN or Inf<extra>%{y}</extra>"
    cells = {
        "type": "heatmap", "x": at.tolist(), "y": list(range(bad.shape[1])), "hoverongaps": False, "showscale": False,
        "z": [[1 if here else None for here in row] for row in bad.T.tolist()],
        "colorscale": [[0, BAD], [1, BAD]], "hovertemplate": hover,
    }  # fmt: skip
    crosses = {
        "type": "scatter", "mode": "markers", "x": at[columns[:MARKS]].tolist(), "y": rows[:MARKS].tolist(),
        "marker": {"symbol": "x", "size": 8, "color": "#ffffff", "line": {"width": 1, "color": "#5c0f2c"}},
        "hovertemplate": hover, "cliponaxis": False,
    }  # fmt: skip
    return [cells, crosses]


def _rows(logs: NDArray[Any]) -> list[list[float | None]]:
    return [[None if math.isnan(value) else _digits(value) for value in row] for row in logs.T.tolist()]


def _digits(value: float) -> float:
    return round(value, 2)


def _see(layers: Layers, columns: int) -> str:
    parts = ["Bright is large; layers stand in model order, the first at the top."]
    if layers.grouped:
        tensors = sum(len(group.members) for group in layers.groups)
        parts.append(
            f"The {tensors:,} tensors are shown as {len(layers.groups)} modules; "
            "the norm of a module is the root of the sum of its tensors' squares."
        )
    shared = common_prefix([group.name for group in layers.groups])
    if shared:
        parts.append(f"All names begin with {shared}")
    if columns < len(layers.steps):
        parts.append(f"Each column is the largest of about {math.ceil(len(layers.steps) / columns)} recorded steps.")
    if layers.missing.any():
        parts.append("Grey: no gradient.")
    if layers.nonfinite.any():
        held = int(layers.nonfinite.any(axis=1).sum())
        parts.append(f"Red, with a cross where it begins: NaN or Inf ({plural(held, 'step')}).")
    return " ".join(parts)
