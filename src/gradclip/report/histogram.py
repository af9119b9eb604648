"""How the norms are distributed, and what each threshold would clip."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradclip.diagnosis.advice.threshold_candidates import Candidate, candidates, finite_norms
from gradclip.diagnosis.formatting import number, percent, plural
from gradclip.report.charts import COLOURS, MUTED, Chart, log_scale
from gradclip.report.table import Table

__all__ = ["candidate_table", "histogram"]

BINS = 60
NAMED = (50.0, 90.0, 99.0)
"""Percentiles with a name on the chart; with more, names would cover each other."""
POINTS = 300
"""Of the curve."""


def histogram(norms: NDArray[np.float64]) -> Chart | None:
    """Draw the norms before clipping and the share of steps above each; None without a norm above 0."""
    finite = finite_norms(norms)
    positive = finite[finite > 0]
    if not len(positive):
        return None
    found = candidates(norms)
    figure = {"data": [_bars(positive), _curve(finite, positive), _dots(found)], "layout": _layout(positive)}
    return Chart("Which threshold clips how much", _see(finite, len(norms)), figure, (), numbers=candidate_table(norms))


def candidate_table(norms: NDArray[np.float64]) -> Table:
    """One row for each percentile: the threshold it gives, and the steps that would be clipped."""
    columns = ("percentile", "threshold", "would clip", "of the last half", "percentile there")
    rows = [_row(candidate) for candidate in candidates(norms)]
    return Table(
        "Percentiles of the norm before clipping as thresholds, and the share of steps they would clip",
        columns,
        rows,
        frozenset(range(1, 5)),
    )


def _row(c: Candidate) -> tuple[str, ...]:
    return f"{c.percentile:g}%", number(c.threshold), percent(c.share), percent(c.late_share), number(c.late_threshold)


def _bars(positive: NDArray[np.float64]) -> dict[str, Any]:
    low, high = np.log10([positive.min(), positive.max()]).tolist()
    edges = np.linspace(low - 0.01, high + 0.01, min(BINS, max(10, len(positive) // 4)) + 1)
    counts, _ = np.histogram(np.log10(positive), edges)
    return {
        "type": "bar", "name": "steps", "x": _digits(10 ** ((edges[1:] + edges[:-1]) / 2)), "y": counts.tolist(),
        "width": _digits(10 ** edges[1:] - 10 ** edges[:-1]), "marker": {"color": MUTED, "opacity": 0.45},
        "hovertemplate": "norm about %{x:.3g}<br>%{y} steps<extra></extra>",
    }  # fmt: skip


def _curve(finite: NDArray[np.float64], positive: NDArray[np.float64]) -> dict[str, Any]:
    at = np.unique(np.quantile(positive, np.linspace(0, 1, POINTS)))
    above = 1 - np.searchsorted(np.sort(finite), at, side="right") / len(finite)
    return {
        "type": "scatter", "mode": "lines", "name": "would be clipped", "x": _digits(at), "y": _digits(100 * above),
        "yaxis": "y2", "line": {"color": COLOURS[0], "width": 2},
        "hovertemplate": "a threshold of %{x:.3g}<br>would clip %{y:.3g}% of steps<extra></extra>",
    }  # fmt: skip


def _dots(found: list[Candidate]) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers+text", "name": "percentiles", "x": [c.threshold for c in found], "yaxis": "y2",
        "y": [100 * c.share for c in found], "text": [f"p{c.percentile:g}" if c.percentile in NAMED else "" for c in found],
        "textposition": "top right",
        "marker": {"color": COLOURS[0], "size": 8}, "cliponaxis": False, "showlegend": False,
        "customdata": [c.percentile for c in found],
        "hovertemplate": "percentile %{customdata}: %{x:.3g}<br>would clip %{y:.3g}% of steps<extra></extra>",
    }  # fmt: skip


def _layout(positive: NDArray[np.float64]) -> dict[str, Any]:
    clear = "rgba(0,0,0,0)"
    return {
        "margin": {"l": 60, "r": 60, "t": 16, "b": 48}, "hovermode": "closest", "bargap": 0.05,
        "paper_bgcolor": clear, "plot_bgcolor": clear, "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"title": {"text": "norm before clipping, or threshold"}, "zeroline": False, **log_scale(positive.tolist())},
        "yaxis": {"title": {"text": "steps"}, "zeroline": False, "showgrid": False, "rangemode": "tozero"},
        "yaxis2": {
            "title": {"text": "would be clipped"}, "overlaying": "y", "side": "right", "range": [0, 103],
            "zeroline": False, "tickmode": "array",
            "tickvals": [0, 25, 50, 75, 100], "ticktext": ["0%", "25%", "50%", "75%", "100%"],
        },
    }  # fmt: skip


def _see(finite: NDArray[np.float64], count: int) -> str:
    middle, top = np.percentile(finite, [50, 99]).tolist()
    see = (
        "Bars count the steps; the curve tells which share of them a threshold would have clipped. "
        f"Half of the norms are below {number(middle)}, 99% below {number(top)}."
    )
    bad = count - len(finite)
    return see + (f" {plural(bad, 'step')} without a finite norm {'is' if bad == 1 else 'are'} left out." if bad else "")


def _digits(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]
