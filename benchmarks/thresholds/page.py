"""The tournament as a page: the verdict, the tasks, the standings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.thresholds.results import Row, bests, cell, ratio, standings
from gradclip.report.page import Page, Table, write

__all__ = ["verdict", "write_page"]


def write_page(rows: Sequence[Row], path: Path) -> Path:
    """Write the page and return where it is."""
    page = Page(
        "Which threshold rule?",
        verdict(rows),
        about="Every rule at its defaults, no clipping, and a sweep of fixed thresholds; each number is a mean over seeds.",
        tables=[_by_task(rows), _overall(rows)],
        facts={"made with": "python -m benchmarks.thresholds", "runs": str(len(rows))},
    )
    return write(page, path)


def verdict(rows: Sequence[Row]) -> str:
    """Return what the numbers say of ``auto``, in one sentence."""
    found = {standing.method: standing for standing in standings(rows)}
    auto = found["auto"]
    rivals = [s for s in found.values() if s.method not in ("auto", "none") and not s.method.startswith("fixed")]
    better = [s.method for s in rivals if s.regret < auto.regret]
    against = f"{', '.join(better)} did better on the whole" if better else "no published rule did better on the whole"
    return (
        f"auto, untuned, ended within 5 % of the best fixed threshold on {auto.within} of {auto.tasks} tasks "
        f"(at worst {auto.worst:.2f} times its loss), with {auto.diverged} diverged runs; {against}."
    )


def _by_task(rows: Sequence[Row]) -> Table:
    shown = [s.method for s in standings(rows) if not s.method.startswith("fixed")]
    body = []
    for task, (method, value) in bests(rows).items():
        ratios = [ratio(rows, task, name, value) if math.isfinite(cell(rows, task, name)) else math.inf for name in shown]
        body.append([task, f"{value:.3g} ({method.removeprefix('fixed ')})", *(f"{r:.2f}" for r in ratios)])
    columns = ["task", "best fixed", *shown]
    return Table("Loss as a multiple of the best fixed threshold's", columns, body, frozenset(range(1, len(columns))))


def _overall(rows: Sequence[Row]) -> Table:
    body = [
        [
            s.method,
            f"{math.expm1(s.regret):.1%}",
            f"{s.worst:.2f}",
            f"{s.within} of {s.tasks}",
            str(s.diverged),
            f"{_clipped(rows, s.method):.0%}",
        ]
        for s in standings(rows)
    ]
    columns = ["method", "mean regret", "worst ratio", "within 5 %", "diverged runs", "steps clipped"]
    return Table("Over all tasks", columns, body, frozenset(range(1, 6)))


def _clipped(rows: Sequence[Row], method: str) -> float:
    shares = [row.clipped for row in rows if row.method == method]
    return sum(shares) / len(shares)
