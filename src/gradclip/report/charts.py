"""From plain numbers to figures: the curves of one run or of several."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from gradclip.report.table import Table
from gradclip.runs import thin

__all__ = ["COLOURS", "MUTED", "Chart", "Line", "curves", "log_scale", "running_mean", "text"]

COLOURS = ("#2f7ed8", "#d9622b", "#1d9a6c", "#a45bc9", "#b08a1e", "#5b7083")
"""One for each run compared; each has a contrast of at least 3:1 on the light and on the dark page."""

MUTED = "#7d8790"
"""For a threshold, which belongs to no run."""

MOST_POINTS = 2000
"""A line of more is thinned."""

HEIGHT = 380
"""Of a figure, in pixels, unless it says otherwise."""

LOG_RANGE = 20.0
"""A largest value this many times the smallest asks for a logarithmic axis."""


@dataclass(frozen=True)
class Line:
    """One line of a chart; NaN and Inf are gaps, which are marked."""

    name: str
    values: Sequence[float]
    colour: str = COLOURS[0]
    dashed: bool = False
    faint: bool = False
    steps: Sequence[float] | None = None
    """The step of each value; 1, 2, 3, ... by default."""
    marked: bool = True
    """Whether gaps are marked."""

    @property
    def at(self) -> Sequence[float]:
        """The step of each value."""
        return range(1, len(self.values) + 1) if self.steps is None else self.steps

    @property
    def finite(self) -> list[float]:
        """The values that are numbers."""
        return [value for value in self.values if math.isfinite(value)]


@dataclass(frozen=True)
class Chart:
    """A figure with its title, one sentence on what to see in it, and the lines it was drawn from."""

    title: str
    see: str
    figure: dict[str, Any]
    """What plotly.js draws: ``data`` and ``layout``."""
    lines: tuple[Line, ...]
    wide: bool = True
    """As wide as the page; two that are not stand side by side where there is room."""
    numbers: Table | None = None
    """What the chart shows, as a table; by default the ends of its lines."""

    @property
    def height(self) -> int:
        """Of the figure, in pixels."""
        return int(self.figure["layout"].get("height", HEIGHT))


def curves(title: str, see: str, lines: Sequence[Line], *, y: str, log: bool | None = None, smooth: int = 1) -> Chart:
    """Draw lines over the steps.

    Args:
        title: of the chart.
        see: one sentence on what to see in it.
        lines: what is drawn, one trace each.
        y: the name of the vertical axis, with its unit.
        log: a logarithmic axis; by default where the range of the values asks for it.
        smooth: draw the mean of so many steps, and the steps themselves in the background.
    """
    logarithmic = _wants_log(lines) if log is None else log
    return Chart(title, see, _figure(lines, y, logarithmic, smooth), tuple(lines))


def _wants_log(lines: Sequence[Line]) -> bool:
    values = [value for line in lines for value in line.finite]
    return bool(values) and min(values) > 0 and max(values) / min(values) >= LOG_RANGE


def _figure(lines: Sequence[Line], y: str, log: bool, smooth: int) -> dict[str, Any]:
    traces = [trace for line in lines for trace in _traces(line, log, smooth)]
    scale = log_scale([value for line in lines for value in line.values]) if log else {"type": "linear"}
    clear = "rgba(0,0,0,0)"  # the page's own ground shows through, light or dark
    layout = {
        "height": HEIGHT, "margin": {"l": 60, "r": 16, "t": 16, "b": 48}, "hovermode": "x unified",
        "paper_bgcolor": clear, "plot_bgcolor": clear, "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"title": {"text": "step"}, "zeroline": False},
        "yaxis": {"title": {"text": text(y)}, "zeroline": False, **scale},
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def log_scale(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis around the values: labels at 1, 2 and 5, or over more than three decades at powers of ten."""
    shown = [math.log10(value) for value in values if math.isfinite(value) and value > 0] or [0.0, 1.0]
    decades = max(shown) - min(shown)
    return {
        "type": "log", "exponentformat": "power", "dtick": "D2" if decades <= 3 else math.ceil(decades / 8),
        "range": [min(shown) - 0.05 * decades - 0.05, max(shown) + 0.05 * decades + 0.05],
    }  # fmt: skip


def _traces(line: Line, log: bool, smooth: int) -> list[dict[str, Any]]:
    drawn = [_trace(line, log)]
    if smooth > 1 and len(line.values) > smooth:
        background = {"opacity": 0.18, "showlegend": False, "hoverinfo": "skip", "hovertemplate": None}
        background["line"] = {"color": line.colour, "width": 1}
        mean = _trace(replace(line, values=running_mean(line.values, smooth)), log)
        drawn = [{**drawn[0], **background}, mean]
    marks = _gap_marks(line, log) if line.marked else None
    return [*drawn, marks] if marks else drawn


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """The mean of each value and those before it, ``window`` in all (fewer at the start); NaN where one is not finite.

    >>> running_mean([2.0, 4.0, 6.0], 2)
    [2.0, 3.0, 5.0]
    """
    stretches = (values[max(0, i + 1 - window) : i + 1] for i in range(len(values)))
    return [math.fsum(stretch) / len(stretch) if all(map(math.isfinite, stretch)) else math.nan for stretch in stretches]


def _drawable(line: Line, log: bool) -> list[float]:
    """The values that an axis can show, NaN for the others; a logarithm has none for 0."""
    return [v if math.isfinite(v) and (v > 0 or not log) else math.nan for v in line.values]


def _trace(line: Line, log: bool) -> dict[str, Any]:
    at, values = _thinned(line.at, _drawable(line, log))
    return {
        "type": "scatter", "mode": "lines", "name": text(line.name), "connectgaps": False,
        "x": at, "y": values,
        "opacity": 0.55 if line.faint else 1, "hovertemplate": "%{y:.4g}",
        "line": {"color": line.colour, "width": 1.5, "dash": "dash" if line.dashed else "solid"},
    }  # fmt: skip


def _gap_marks(line: Line, log: bool) -> dict[str, Any] | None:
    """A cross at the last drawable value before each stretch of NaN, Inf or (on a logarithmic axis) 0."""
    points = zip(line.at, _drawable(line, log), strict=True)
    last = [(x, v) for (x, v), (_, then) in pairwise(points) if math.isfinite(v) and math.isnan(then)]
    if not last:
        return None
    at, values = _thinned(*zip(*last, strict=True))
    return {
        "type": "scatter", "mode": "markers", "name": text(f"{line.name}: no finite value after this"),
        "hovertemplate": "%{y:.4g}",
        "x": at, "y": values,
        "marker": {"symbol": "x", "size": 9, "color": line.colour},
    }  # fmt: skip


def _thinned(at: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float | None]]:
    """The points to draw, a gap (None) where a value is NaN."""
    kept = thin(values, MOST_POINTS).tolist()
    return [at[i] for i in kept], [_rounded(values[i]) for i in kept]


def _rounded(value: float) -> float | None:
    """Five digits: no screen shows more, and the page stays small."""
    return None if math.isnan(value) else float(f"{value:.5g}")


def text(words: str) -> str:
    """Escape a name for plotly, which reads a few HTML tags in its labels."""
    return html.escape(words, quote=False)
