"""The tournament as a page of the documentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.tables import put_into_page
from benchmarks.thresholds.page import verdict
from benchmarks.thresholds.results import Row, bests, cell, ratio, standings

__all__ = ["PAGE", "write_docs"]

PAGE = Path(__file__).parents[2] / "docs" / "thresholds.md"
SHOWN = ("auto", "trust", "zclip, cap 1", "adagc", "stable_spam", "agc", "zclip", "none")
"""The columns of the table by tasks; the page of ``--page`` has all."""


def write_docs(rows: Sequence[Row], page: Path = PAGE) -> None:
    """Put the verdict and the tables between the marks of a page."""
    put_into_page(page, "standings", [f"**{verdict(rows)}**", "", *_overall(rows)])
    put_into_page(page, "tasks", _by_task(rows))


def _overall(rows: Sequence[Row]) -> list[str]:
    head = ["| method | mean regret | worst ratio | within 5 % | diverged runs |", "| --- | ---: | ---: | ---: | ---: |"]
    return head + [
        f"| {s.method} | {math.expm1(s.regret):.1%} | {s.worst:.2f} | {s.within} of {s.tasks} | {s.diverged} |"
        for s in standings(rows)
    ]


def _by_task(rows: Sequence[Row]) -> list[str]:
    from benchmarks.thresholds.tasks import TASKS

    held_out = {task.name for task in TASKS if task.held_out}
    lines = [f"| task | best fixed | {' | '.join(SHOWN)} |", "| --- | ---: |" + " ---: |" * len(SHOWN)]
    for task, (method, value) in bests(rows).items():
        ratios = [f"{ratio(rows, task, m, value):.2f}" if math.isfinite(cell(rows, task, m)) else "diverged" for m in SHOWN]
        name = f"{task} (held out)" if task in held_out else task
        lines.append(f"| {name} | {value:.3g} ({method.removeprefix('fixed ')}) | {' | '.join(ratios)} |")
    return lines
