"""Loss and norms over the steps, with what was skipped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradclip.diagnosis.formatting import number, percent, plural
from gradclip.diagnosis.readings.run_data import OptimizerRun
from gradclip.report.charts import COLOURS, MUTED, Chart, Line, curves, log_scale, text
from gradclip.report.table import Table
from gradclip.runs import thin

__all__ = ["loss", "mean_of", "norms", "rates", "scale", "thinned_line"]

POINTS = 1600
"""Of a line; no screen is wider."""
MARKS = 600
LONG = 250
"""A run of fewer steps is shown as it is."""
SMOOTH = 50
"""A run is so many times as long as the stretch its loss is averaged over."""
BAD, SKIPPED = "#d6336c", "#b08a1e"

Floats = NDArray[np.float64]


def loss(optimizer: OptimizerRun) -> Chart | None:
    """Draw the loss; None where none was recorded."""
    steps = optimizer.steps
    there = ~steps.missing["loss"]
    if not there.any():
        return None
    at, values = steps.step[there], steps.loss[there]
    window = len(values) // SMOOTH if len(values) >= LONG else 1
    lines = [thinned_line("loss", at, values, faint=window > 1)]
    if window > 1:
        lines.append(replace(thinned_line(f"mean of {window} steps", at, mean_of(values, window)), marked=False))
    see = _see_loss(values, window)
    return replace(curves("Loss", see, lines, y="loss"), numbers=_numbers("Loss", [("loss", values)]))


def norms(
    optimizer: OptimizerRun, title: str = "Gradient norm", colour: str = COLOURS[0], beside: Sequence[float] = ()
) -> Chart | None:
    """Draw the norm before and after clipping, the threshold, and where steps were skipped or not finite.

    Args:
        optimizer: whose steps.
        title: of the chart.
        colour: of the norms.
        beside: norms of the chart that this one stands beside; both get an axis that holds all of them.
    """
    steps = optimizer.steps
    there = ~steps.missing["norm"]
    if not there.any():
        return None
    clipped = bool(optimizer.steps.clip_attempts)
    kept = np.where(steps.skipped, np.nan, steps.clipped_norm)
    lines = [thinned_line("before clipping" if clipped else "gradient norm", steps.step, steps.norm, colour, faint=clipped)]
    shown = [("before clipping" if clipped else "gradient norm", steps.norm[there])]
    if clipped:
        lines.append(thinned_line("after clipping", steps.step, kept, colour))
        shown.append(("after clipping", kept[~steps.missing["clipped_norm"] & ~steps.skipped]))
    if np.isfinite(steps.threshold).any():
        lines.append(thinned_line("threshold", steps.step, steps.threshold, MUTED, dashed=True))
        shown.append(("threshold", steps.measured("threshold")))
    lines = [replace(line, marked=False) for line in lines]
    chart = curves(title, _see_norms(optimizer), lines, y="gradient norm", log=True)
    axis = chart.figure["layout"]["yaxis"]
    axis |= log_scale([*beside, *(value for line in lines for value in line.values)])
    chart.figure["data"] += _marks(optimizer, 10 ** axis["range"][0])
    return replace(chart, wide=not beside, numbers=_numbers(title, shown))


def rates(optimizer: OptimizerRun) -> Chart | None:
    """Draw the learning rates; None where they never change."""
    at, rates = optimizer.rate_steps, optimizer.rates
    if not rates.size or (np.nanmax(rates, axis=0) == np.nanmin(rates, axis=0)).all():
        return None
    groups = rates.shape[1]
    names = ["learning rate"] if groups == 1 else [f"group {i}" for i in range(groups)]
    lines = [thinned_line(name, at, rates[:, i], COLOURS[i % len(COLOURS)]) for i, name in enumerate(names)]
    see = f"From {number(float(rates[0, 0]))} to {number(float(rates[-1, 0]))}, at most {number(float(np.nanmax(rates)))}."
    see += f" One line for each of the {groups} parameter groups." if groups > 1 else ""
    return replace(curves("Learning rate", see, lines[: len(COLOURS)], y="learning rate", log=False), wide=False)


def scale(optimizer: OptimizerRun) -> Chart | None:
    """Draw the scale of mixed precision; None without one."""
    there = ~optimizer.steps.missing["amp_scale"]
    if not there.any():
        return None
    line = thinned_line("loss scale", optimizer.steps.step[there], optimizer.steps.amp_scale[there])
    see = "Mixed precision multiplies the loss by this; it is halved when a gradient overflows, and that step is skipped."
    return replace(curves("Loss scale", see, [line], y="scale"), wide=False)


def thinned_line(
    name: str, steps: NDArray[np.int64], values: Floats, colour: str = COLOURS[0], most: int = POINTS, **look: Any
) -> Line:
    """Return a line of at most so many points that keeps the extremes and the gaps."""
    kept = thin(values, most)
    return Line(name, values[kept].tolist(), colour, steps=steps[kept].tolist(), **look)


def mean_of(values: Floats, window: int) -> Floats:
    """Return the mean of each value and those before it, ``window`` in all; what is not finite is left out.

    >>> mean_of(np.array([2.0, 4.0, np.nan, 8.0]), 2).tolist()
    [2.0, 3.0, 4.0, 8.0]
    """
    finite = np.isfinite(values)
    sums = np.cumsum(np.where(finite, values, 0.0))
    counts = np.cumsum(finite)
    sums[window:] -= sums[:-window].copy()
    counts[window:] -= counts[:-window].copy()
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _see_loss(values: Floats, window: int) -> str:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "The loss was never a finite number."
    tenth = max(1, len(finite) // 10)
    first, last = (number(float(part.mean())) for part in (finite[:tenth], finite[-tenth:]))
    lowest = number(float(finite.min()))
    see = f"The mean of the first tenth of the steps is {first}, of the last {last}; the lowest loss is {lowest}."
    if len(finite) < len(values):
        see += f" {plural(len(values) - len(finite), 'step')} had a loss that is not finite."
    return see + (" The steps themselves stand behind the mean." if window > 1 else "")


def _see_norms(optimizer: OptimizerRun) -> str:
    parts = []
    ran, rate = optimizer.steps.clip_attempts, optimizer.steps.clip_rate
    if ran:
        parts.append(f"Clipping changed {percent(rate)} of {plural(ran, 'step')} at which it ran.")
    else:
        parts.append("Nothing was clipped, so there is one line.")
    finite = optimizer.norms[np.isfinite(optimizer.norms)]
    if len(finite) and np.median(finite):
        largest, times = float(finite.max()), float(finite.max() / np.median(finite))
        parts.append(f"The largest norm before clipping was {number(largest)}, {number(times)} times the median.")
    bad, skipped = int(optimizer.bad.sum()), int(optimizer.steps.skipped.sum())
    if bad or skipped:
        parts.append(f"Marks at the foot: {plural(bad, 'step')} with a NaN or Inf (crosses), {skipped:,} skipped (triangles).")
    return " ".join(parts)


def _marks(optimizer: OptimizerRun, foot: float) -> list[dict[str, Any]]:
    """Marks at the foot of the chart, where neither a line nor its gap can say why."""
    steps = optimizer.steps
    kinds = (("skipped", steps.skipped, "triangle-up-open", 15, SKIPPED), ("NaN or Inf", optimizer.bad, "x", 7, BAD))
    return [
        {
            "type": "scatter", "mode": "markers", "name": text(name), "hovertemplate": f"step %{{x}}<extra>{name}</extra>",
            "x": _few(steps.step[where]), "y": [foot] * len(_few(steps.step[where])), "cliponaxis": False,
            "marker": {"symbol": symbol, "size": size, "color": colour, "line": {"width": 1.5}},
        }
        for name, where, symbol, size, colour in kinds if where.any()
    ]  # fmt: skip


def _few(steps: NDArray[np.int64]) -> list[int]:
    kept = np.unique(np.linspace(0, len(steps) - 1, MARKS).astype(int)) if len(steps) > MARKS else slice(None)
    few: list[int] = steps[kept].tolist()
    return few


def _numbers(title: str, series: Sequence[tuple[str, Floats]]) -> Table:
    """The ends of each line, from all of its steps."""
    columns = ("line", "first", "smallest", "median", "largest", "last", "not finite")
    return Table(f"{title}: the ends of each line", columns, [_ends(*one) for one in series], frozenset(range(1, 7)))


def _ends(name: str, values: Floats) -> tuple[str, ...]:
    finite = values[np.isfinite(values)]
    of_finite = (finite.min(), np.median(finite), finite.max()) if len(finite) else (math.nan,) * 3
    ends = (values[0], *of_finite, values[-1]) if len(values) else (math.nan,) * 5
    return name, *(number(float(value)) for value in ends), f"{len(values) - len(finite):,}"
