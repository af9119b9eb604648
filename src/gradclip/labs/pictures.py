"""Pictures of labs whose horizontal axis is not the step, and their words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from gradclip.report.charts import HEIGHT, Chart, Line, curves, text
from gradclip.report.table import Table

__all__ = ["Path", "against", "listed", "middle", "surface"]

SCALE = ((0.0, "#2c343c"), (0.5, "#7d8790"), (1.0, "#dfe4e8"))
"""Greys, dark where the loss is low, so that the paths alone are coloured."""


def against(title: str, see: str, lines: Sequence[Line], *, x: str, y: str, log_x: bool = False, log: bool = False) -> Chart:
    """Draw lines over something other than the step; every point is marked.

    Args:
        title: of the chart.
        see: one sentence on what to see in it.
        lines: what is drawn; their ``steps`` are the places on the horizontal axis.
        x: the name of the horizontal axis.
        y: the name of the vertical axis, with its unit.
        log_x: a logarithmic horizontal axis.
        log: a logarithmic vertical axis.
    """
    chart = curves(title, see, lines, y=y, log=log)
    for trace in chart.figure["data"]:
        if trace["mode"] == "lines":
            trace["mode"] = "lines+markers"
    axis = {"type": "log", "exponentformat": "power", "dtick": 1} if log_x else {"type": "linear"}
    chart.figure["layout"]["xaxis"].update({"title": {"text": text(x)}, **axis})
    return replace(chart, numbers=_points(title, lines, x))


def _points(title: str, lines: Sequence[Line], x: str) -> Table:
    places = sorted({place for line in lines for place in line.at})
    values = [dict(zip(line.at, line.values, strict=True)) for line in lines]
    rows = [(f"{place:g}", *(f"{line[place]:.4g}" if place in line else "–" for line in values)) for place in places]
    return Table(title, (x, *(line.name for line in lines)), rows, frozenset(range(1, len(lines) + 1)))


class Path:
    """A way across a surface: its name, its points and its colour."""

    def __init__(self, name: str, x: Sequence[float], y: Sequence[float], colour: str) -> None:
        self.name, self.x, self.y, self.colour = name, x, y, colour

    @property
    def trace(self) -> dict[str, Any]:
        """What plotly draws, with a mark at each step and a larger one at the end."""
        return {
            "type": "scatter", "mode": "lines+markers", "name": text(self.name), "x": _digits(self.x), "y": _digits(self.y),
            "line": {"color": self.colour, "width": 2},
            "marker": {"color": self.colour, "size": [3] * (len(self.x) - 1) + [10], "line": {"width": 0}, "opacity": 1},
        }  # fmt: skip


def surface(
    title: str, see: str, paths: Sequence[Path], z: Sequence[Sequence[float]], x: Sequence[float], y: Sequence[float],
    *, x_name: str = "weight w", y_name: str = "bias b", z_name: str = "log10 of the loss",
) -> Chart:  # fmt: skip
    """Draw paths over a surface, whose rows of ``z`` belong to ``y`` and columns to ``x``."""
    ground = {
        "type": "heatmap", "z": [_digits(row) for row in z], "x": _digits(x), "y": _digits(y), "zsmooth": "best",
        "colorscale": [list(stop) for stop in SCALE], "hovertemplate": "%{x:.2f}, %{y:.2f}: %{z:.2f}<extra></extra>",
        "colorbar": {"title": {"text": text(z_name), "side": "right"}, "thickness": 10, "outlinewidth": 0},
    }  # fmt: skip
    chart = curves(title, see, [], y=y_name, log=False)
    layout = {**chart.figure["layout"], "height": round(1.4 * HEIGHT), "hovermode": "closest"}
    layout["xaxis"] = {"title": {"text": text(x_name)}, "zeroline": False, "showgrid": False, "range": [x[0], x[-1]]}
    layout["yaxis"] |= {"showgrid": False, "range": [y[0], y[-1]]}
    figure = {"data": [ground, *(path.trace for path in paths)], "layout": layout}
    rows = [(path.name, _place(path, 0), _place(path, -1), f"{len(path.x) - 1:,}") for path in paths]
    return Chart(title, see, figure, (), numbers=Table(title, ("path", "start", "end", "steps"), rows, frozenset((1, 2, 3))))


def _place(path: Path, at: int) -> str:
    return f"({path.x[at]:.3g}, {path.y[at]:.3g})"


def _digits(values: Sequence[float]) -> list[float | None]:
    return [round(value, 3) if math.isfinite(value) else None for value in values]


def middle(values: Sequence[float]) -> float:
    """The median of those that are numbers; NaN where none is.

    >>> middle([1.0, float("inf"), 5.0, 3.0])
    3.0
    """
    finite = [value for value in values if math.isfinite(value)]
    return median(finite) if finite else math.nan


def listed(words: Sequence[str]) -> str:
    """Join words as a sentence does.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
