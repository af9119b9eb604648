"""What the runs say: one table of tasks by methods, and how far each method is from the best fixed threshold."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

__all__ = ["Row", "Standing", "bests", "read", "standings", "write_row"]

FIELDS = ("task", "method", "seed", "metric", "clipped", "seconds")
WORST = 100.0
"""A diverged run counts as this many times the best fixed threshold; so does anything worse."""


@dataclass(frozen=True)
class Row:
    """One run."""

    task: str
    method: str
    seed: int
    metric: float
    clipped: float
    seconds: float

    @property
    def diverged(self) -> bool:
        """Whether the loss was no number at the end."""
        return not math.isfinite(self.metric)


@dataclass(frozen=True)
class Standing:
    """How a method did over all tasks."""

    method: str
    regret: float
    """The mean over tasks of the log of its metric over the best fixed threshold's."""
    worst: float
    """Its largest ratio on any task."""
    within: int
    """Tasks on which it is within 5 % of the best fixed threshold."""
    tasks: int
    diverged: int
    """Runs that diverged."""


def read(path: Path) -> list[Row]:
    """Read the runs done so far; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Row(r["task"], r["method"], int(r["seed"]), float(r["metric"]), float(r["clipped"]), float(r["seconds"]))
            for r in csv.DictReader(file)
        ]


def write_row(path: Path, row: Row) -> None:
    """Append one run; the first writes the header."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(FIELDS)
        writer.writerow([row.task, row.method, row.seed, f"{row.metric:.6g}", f"{row.clipped:.4f}", f"{row.seconds:.2f}"])


def cell(rows: Iterable[Row], task: str, method: str) -> float:
    """Return the mean metric over seeds; inf if any diverged."""
    return fmean(row.metric for row in rows if row.task == task and row.method == method)


def bests(rows: Sequence[Row]) -> Mapping[str, tuple[str, float]]:
    """Return the best fixed threshold (or none at all) of each task, and its metric."""
    found = {}
    for task in dict.fromkeys(row.task for row in rows):
        fixed = dict.fromkeys(r.method for r in rows if r.task == task and (r.method == "none" or r.method.startswith("fixed")))
        method = min(fixed, key=lambda name: cell(rows, task, name))
        found[task] = method, cell(rows, task, method)
    return found


def ratio(rows: Sequence[Row], task: str, method: str, best: float) -> float:
    """Return the metric as a multiple of the best fixed threshold's, at most ``WORST``."""
    value = cell(rows, task, method) / best
    return min(WORST, value) if math.isfinite(value) else WORST


def standings(rows: Sequence[Row]) -> list[Standing]:
    """Return every method's standing, the least regret first."""
    best = bests(rows)
    found = []
    for method in dict.fromkeys(row.method for row in rows):
        ratios = [ratio(rows, task, method, value) for task, (_, value) in best.items()]
        diverged = sum(row.diverged for row in rows if row.method == method)
        within = sum(r <= 1.05 for r in ratios)
        found.append(Standing(method, fmean(map(math.log, ratios)), max(ratios), within, len(ratios), diverged))
    return sorted(found, key=lambda standing: standing.regret)
