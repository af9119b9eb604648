"""Run the suite: ``python -m benchmarks.findings``; about two minutes on two cores.

python -m benchmarks.findings                    # every script: what was expected, what was found
python -m benchmarks.findings --only healthy/    # those whose name contains this
python -m benchmarks.findings --only unseen/     # the part that the rules were not tuned on
python -m benchmarks.findings --docs             # and put the numbers into docs/findings.md
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.findings.docs import write_docs
from benchmarks.findings.running import Outcome, run
from benchmarks.findings.scores import Totals, parts, totals, untrue, verdict
from benchmarks.findings.scripts import Script, scripts

__all__ = ["main", "run_all"]

PARTS = ("sick/ and healthy/, which the rules were tuned on", "unseen/, written after the rules and without knowledge of them")
COLOURS = {"broken": "red", "missed": "red", "false alarm": "red", "noted": "yellow", "named": "yellow"}


def main(arguments: Sequence[str] | None = None) -> list[Outcome]:
    """Run the scripts, and tell what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="the scripts whose name contains this")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2); 0 runs all in this one")
    parser.add_argument("--csv", type=Path, help="write a line for each script here")
    parser.add_argument("--docs", action="store_true", help="put the numbers into docs/findings.md")
    asked = parser.parse_args(arguments)
    if asked.docs and asked.only:
        parser.error("--docs is for the whole suite; leave --only out")
    chosen = scripts(asked.only)
    if not chosen:
        parser.error(f"no script's name contains {asked.only!r}")
    outcomes = run_all(chosen, asked.jobs)
    _print(outcomes)
    if asked.csv is not None:
        _write_csv(asked.csv, outcomes)
    if asked.docs:
        write_docs(outcomes)
    return outcomes


def run_all(chosen: Sequence[Script], jobs: int = 2) -> list[Outcome]:
    """Run scripts in so many processes, each of which takes one script after another; 0 runs them in this one."""
    if not jobs:
        return [run(script) for script in chosen]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        console = Console(stderr=True)
        return list(track(pool.map(run, chosen), "findings", total=len(chosen), console=console, transient=True))


def summary(found: Totals) -> list[tuple[str, str]]:
    """Return what the totals say, one line each."""
    return [
        ("sick scripts whose fault was named", str(found.named)),
        ("first finding names the fault", str(found.leading)),
        ("first finding is true of the script", str(found.leading_true)),
        ("sick scripts with a warning or error that is not true of them", str(found.untrue)),
        ("healthy scripts with a warning or error", str(found.false_alarms)),
        ("healthy scripts with nothing but notes", str(found.noted)),
        ("scripts that did not run to their end", str(found.broken)),
    ]


def _print(outcomes: Sequence[Outcome]) -> None:
    out = Console(width=None if Console().is_terminal else 180)
    table = Table("script", "expected", "found", "verdict", "seconds")
    for outcome in outcomes:
        told = outcome.error or ", ".join(f"{one.name} ({one.severity})" for one in outcome.found)
        word = verdict(outcome)
        shown = f"[{COLOURS.get(word, 'green')}]{word}[/]" + (", untrue" if outcome.script.sick and untrue(outcome) else "")
        table.add_row(outcome.script.name, " | ".join(outcome.script.expects), told, shown, f"{outcome.seconds:.1f}")
    out.print(table)
    for heading, part in zip(PARTS, parts(outcomes), strict=True):
        if part:
            out.print(heading, style="bold")
            for label, value in summary(totals(part)):
                out.print(f"{label}: {value}")


def _write_csv(path: Path, outcomes: Sequence[Outcome]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("script", "expects", "also_fine", "found", "verdict", "untrue", "error", "steps"))
        for one in outcomes:
            found = " ".join(f"{each.name}:{each.severity}" for each in one.found)
            also, wrong = " ".join(one.script.also_fine), " ".join(untrue(one)) if one.script.sick else ""
            said = (one.script.name, " ".join(one.script.expects), also, found, verdict(one), wrong, one.error, one.steps)
            writer.writerow(said)
