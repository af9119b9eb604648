"""Runs side by side: their losses and norms in one picture, and what became of each in a row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradclip.diagnosis.formatting import number, percent
from gradclip.diagnosis.readings.losses import final_loss
from gradclip.report.charts import COLOURS, Chart, curves
from gradclip.report.page import Page
from gradclip.report.table import Table
from gradclip.report.timeline import LONG, SMOOTH, mean_of, thinned_line
from gradclip.runs import Run, Steps

__all__ = ["Compared", "compare_page", "compare_table", "compared", "verdict"]


@dataclass(frozen=True, eq=False)
class Compared:
    """One optimizer of one run."""

    name: str
    status: str
    clip: str
    steps: Steps

    @property
    def losses(self) -> NDArray[np.float64]:
        """The losses that were measured."""
        return self.steps.measured("loss")

    @property
    def final_loss(self) -> float:
        """The mean loss of the last tenth of the steps; not finite where one of them is not."""
        return final_loss(self.steps)

    @property
    def seconds(self) -> float:
        """The median time from one step to the next."""
        times = self.steps.measured("time")
        return float(np.median(np.diff(times))) if len(times) > 1 else math.nan


def compared(runs: Sequence[Run]) -> list[Compared]:
    """Take the optimizers of all runs, with names that tell them apart."""
    titles = [str(run.meta.get("title") or run.path.stem) for run in runs]
    counts = Counter(titles)
    found = []
    for place, (run, title) in enumerate(zip(runs, titles, strict=True)):
        name = title if counts[title] == 1 else _told_apart(run, title, place, runs)
        for optimizer in run.optimizers:
            which = f", optimizer {optimizer}" if len(run.optimizers) > 1 else ""
            found.append(Compared(name + which, run.status, str(run.meta.get("clip") or ""), run.steps(optimizer)))
    return found


def compare_table(found: Sequence[Compared]) -> Table:
    """One row for each run and optimizer."""
    columns = ("run", "steps", "final loss", "last 10%", "largest norm", "clipped", "skipped", "ms a step")
    note = "Last 10%: the mean loss of the last tenth of the steps. Clipped: of the steps at which clipping ran."
    return Table("Side by side", columns, [_row(one) for one in found], frozenset(range(1, 8)), [note, *_clips(found)])


def compare_page(found: Sequence[Compared], command: str) -> Page:
    """Lay the runs over each other."""
    title = " and ".join(one.name for one in found) if len(found) == 2 else f"{len(found)} trainings side by side"
    charts = [chart for chart in (_losses(found), _norms(found)) if chart is not None]
    return Page(title, verdict(found), "", [compare_table(found)], charts, {"Again": command})


def verdict(found: Sequence[Compared]) -> str:
    """Say which ended with the lowest loss, and whether any did not end well."""
    ranked = sorted((one for one in found if math.isfinite(one.final_loss)), key=lambda one: one.final_loss)
    lost = [one.name for one in found if len(one.losses) and not math.isfinite(one.final_loss)]
    parts = []
    if len(ranked) > 1:
        best, *others = ranked
        rest = ", ".join(f"{one.name} at {number(one.final_loss)}" for one in others)
        parts.append(f"{best.name} ends with the lowest loss, {number(best.final_loss)} (mean of the last tenth), then {rest}")
    elif ranked:
        parts.append(f"{ranked[0].name} ends at a loss of {number(ranked[0].final_loss)} (mean of the last tenth)")
    if lost:
        parts.append(f"the loss of {', '.join(lost)} ends without a finite number")
    return f"{'; '.join(parts)}." if parts else "No loss was recorded in any of these runs."


def _told_apart(run: Run, title: str, place: int, runs: Sequence[Run]) -> str:
    stems = [other.path.stem for other in runs]
    return run.path.stem if stems.count(run.path.stem) == 1 else f"{title} ({place + 1})"


def _row(one: Compared) -> tuple[str, ...]:
    steps = one.steps
    norms = steps.norm[np.isfinite(steps.norm)]
    return (
        one.name if one.status == "finished" else f"{one.name} ({one.status})",
        f"{len(steps):,}",
        number(float(one.losses[-1])) if len(one.losses) else "–",
        number(one.final_loss) if len(one.losses) else "–",
        number(float(norms.max())) if len(norms) else "–",
        percent(steps.clip_rate) if steps.clip_attempts else "–",
        f"{int(steps.skipped.sum()):,}",
        number(1000 * one.seconds) if math.isfinite(one.seconds) else "–",
    )


def _clips(found: Sequence[Compared]) -> list[str]:
    return [f"{one.name} was clipped with {one.clip}." for one in found if one.clip]


def _losses(found: Sequence[Compared]) -> Chart | None:
    lines = []
    for one, colour in zip(found, _colours(found), strict=True):
        window = max(1, len(one.losses) // SMOOTH) if len(one.losses) >= LONG else 1
        at = one.steps.step[~one.steps.missing["loss"]]
        if len(at):
            lines.append(thinned_line(one.name, at, mean_of(one.losses, window), colour))
    see = f"Each line is a running mean over a {SMOOTH}th of its run where that is long; lower is better."
    return curves("Loss", see, lines, y="loss") if lines else None


def _norms(found: Sequence[Compared]) -> Chart | None:
    lines = [
        thinned_line(one.name, one.steps.step, one.steps.norm, colour)
        for one, colour in zip(found, _colours(found), strict=True)
        if np.isfinite(one.steps.norm).any()
    ]
    return (
        curves("Gradient norm before clipping", "The extremes are kept.", lines, y="gradient norm", log=True) if lines else None
    )


def _colours(found: Sequence[Compared]) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(found))]
