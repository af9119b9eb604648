"""Which layer had which norm at which step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradclip.record import thin_matrix
from gradclip.report.charts import Chart, text
from gradclip.report.gathered import Layers
from gradclip.report.grouping import common_prefix
from gradclip.report.table import Table
from gradclip.report.words import number, plural, short

__all__ = ["SCALE", "heatmap", "layer_table"]

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
    return group.name, str(len(group.members)), *map(number, ends), f"{share:.1%}", f"{bad:,}"


def _shares(layers: Layers) -> NDArray[np.float64]:
    squares = np.square(layers.norms, dtype=np.float64)
    squares[~np.isfinite(squares)] = 0.0
    whole = squares.sum(axis=1, keepdims=True)
    counted = whole[:, 0] > 0
    return (squares[counted] / whole[counted]).mean(axis=0) if counted.any() else np.zeros(len(layers.groups))


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
    names = [text(group.name) for group in layers.groups]
    shared = common_prefix([group.name for group in layers.groups])
    clear = "rgba(0,0,0,0)"
    layout = {
        "height": 100 + _height(names), "margin": {"l": 60, "r": 8, "t": 8, "b": 92},
        "paper_bgcolor": clear, "plot_bgcolor": clear, "showlegend": False, "hovermode": "closest",
        "xaxis": {"title": {"text": "step"}, "zeroline": False, "showgrid": False},
        "yaxis": {
            "autorange": "reversed", "zeroline": False, "showgrid": False, "title": {"text": ""}, "tickmode": "array",
            "tickvals": list(range(len(names))), "ticktext": [text(short(name)) for name in _without(shared, layers)],
        },
        "meta": {"ground": "line"},
    }  # fmt: skip
    data = [_cells(at, shown, names, low, high), *_bad_cells(at, bad, names)]
    return {"data": data, "layout": layout}


def _without(prefix: str, layers: Layers) -> list[str]:
    return [group.name.removeprefix(prefix) for group in layers.groups]


def _height(names: Sequence[str]) -> int:
    """Of the cells, in pixels."""
    return ROW * max(len(names), FEWEST)


def _range(logs: NDArray[Any]) -> tuple[float, float]:
    finite = logs[np.isfinite(logs)]
    if not len(finite):
        return -1.0, 0.0
    low, high = np.percentile(finite, [LOWEST, HIGHEST]).tolist()
    return (low, high) if high - low > 0.1 else (low - 0.05, low + 0.05)


def _cells(at: NDArray[np.int64], logs: NDArray[Any], names: Sequence[str], low: float, high: float) -> dict[str, Any]:
    spread = max(1, math.ceil((high - low) / 6))
    ticks = list(range(math.ceil(low), math.floor(high) + 1, spread))
    if len(ticks) < 2:
        ticks_at, labels = [low, (low + high) / 2, high], [number(10**value) for value in (low, (low + high) / 2, high)]
    else:
        ticks_at, labels = [float(tick) for tick in ticks], [f"10<sup>{tick}</sup>".replace("-", "−") for tick in ticks]
    return {
        "type": "heatmap", "x": at.tolist(), "y": list(range(len(names))), "z": _rows(logs), "zmin": _digits(low), "zmax": _digits(high),
        "colorscale": [[i / (len(SCALE) - 1), colour] for i, colour in enumerate(SCALE)], "hoverongaps": False,
        "text": names, "hovertemplate": "step %{x}<br>log10 norm %{z:.2f}<extra>%{y}</extra>",
        "colorbar": {
            "orientation": "h", "thickness": 10, "len": 0.5, "x": 0, "xanchor": "left", "y": -BELOW / _height(names), "yanchor": "top", "ypad": 0, "xpad": 0,
            "outlinewidth": 0, "tickvals": ticks_at, "ticktext": labels,
        },
    }  # fmt: skip


def _bad_cells(at: NDArray[np.int64], bad: NDArray[np.bool_], names: Sequence[str]) -> list[dict[str, Any]]:
    """Every cell with a NaN or Inf in one colour, and a cross where a stretch of them begins."""
    if not bad.any():
        return []
    before = np.vstack([np.zeros((1, bad.shape[1]), bool), bad[:-1]])
    columns, rows = np.nonzero(bad & ~before)
    hover = "step %{x}<br>NaN or Inf<extra>%{y}</extra>"
    cells = {
        "type": "heatmap", "x": at.tolist(), "y": list(range(len(names))), "hoverongaps": False, "showscale": False,
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
