"""The suite's numbers as a part of the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.findings.running import Outcome
from benchmarks.findings.scores import by_finding, parts, totals, verdict
from benchmarks.tables import put_into_page
from gradclip.diagnosis.registry import CHECKS

__all__ = ["PAGE", "write_docs"]

PAGE = Path(__file__).parents[2] / "docs" / "findings.md"


def write_docs(outcomes: Sequence[Outcome], page: Path = PAGE) -> None:
    """Put the numbers between the marks of a page."""
    seen, unseen = parts(outcomes)
    put_into_page(page, "findings: accuracy", _accuracy(seen))
    put_into_page(page, "findings: each", _each(seen))
    put_into_page(page, "findings: wrong", _wrong(seen))
    put_into_page(page, "findings: unseen", [*_accuracy(unseen), "", "What went wrong there:", "", *_wrong(unseen)])


def _accuracy(outcomes: Sequence[Outcome]) -> list[str]:
    found = totals(outcomes)
    return [
        "| | |",
        "| --- | ---: |",
        f"| faults named, of the sick scripts | {found.named} |",
        f"| the first finding names the fault | {found.leading} |",
        f"| the first finding is true of the script | {found.leading_true} |",
        f"| sick scripts with a warning or error that is not true of them | {found.untrue} |",
        f"| healthy scripts with a warning or error | {found.false_alarms} |",
        f"| healthy scripts with nothing but notes | {found.noted} |",
    ]


def _each(outcomes: Sequence[Outcome]) -> list[str]:
    lines = ["| finding | sick scripts named | as the first finding | healthy scripts warned | noted |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    rows = by_finding(outcomes, list(CHECKS))
    return lines + [
        f"| {row.name} | {row.named.hits} of {row.named.of} | {row.leading} | {row.false_alarms} | {row.noted} |"
        for row in rows
    ]


def _wrong(outcomes: Sequence[Outcome]) -> list[str]:
    wrong = [outcome for outcome in outcomes if verdict(outcome) in ("missed", "false alarm", "broken")]
    if not wrong:
        return ["No fault was missed, and no healthy script was warned of."]
    lines = ["| script | what it is | verdict | found |", "| --- | --- | --- | --- |"]
    return lines + [f"| {o.script.name} | {o.script.what} | {verdict(o)} | {_told(o)} |" for o in wrong]


def _told(outcome: Outcome) -> str:
    return outcome.error or ", ".join(dict.fromkeys(one.name for one in outcome.found)) or "nothing"
