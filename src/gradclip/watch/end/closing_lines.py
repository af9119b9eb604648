"""What is said last of a run that has just ended: what is wrong with it, and where its page is; in a process of its own.

``closing_process.py`` starts it. Nothing here is imported in the process of the script.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from gradclip.diagnosis.finding import Finding
from gradclip.diagnosis.formatting import plural
from gradclip.diagnosis.ranking import LEADING, check
from gradclip.diagnosis.readings.run_data import RunData, read_run
from gradclip.diagnosis.registry import CHECKS
from gradclip.runs import Run, RunFileError
from gradclip.runs.schema import SUFFIX
from gradclip.watch.messages import shown

__all__ = ["closing_lines", "main", "started_lines"]

PATIENCE: Final = 5.0
"""Seconds to wait for other ranks to write what the first one has written already."""


def closing_lines(run: Path, page: Path | None, folder: str) -> list[str]:
    """Check a run once, write its page if one is asked for, and say both, a line each; whatever goes wrong is a line, too.

    Args:
        run: the run file.
        page: where the page goes; None for no page.
        folder: where the user is, whom paths are told from there.
    """
    try:
        with Run.open(run) as opened:
            _wait_for_ranks(opened)
            data = read_run(opened)
            findings = check(data)
            still = opened.ranks_writing
            return [
                *_ranks(data),
                *(_still_writing(shown(run, folder)) if still else ()),
                *_findings(findings, shown(run, folder)),
                *_page(data, findings, page, folder),
            ]
    except Exception as error:
        return [f"checks  could not look at the run: {error}", f"run     {shown(run, folder)}"]


def started_lines(runs: Path, launch: str, began: float, but: Path | None, folder: str) -> list[str]:
    """Say what the processes have recorded that one `gradclip run` has led to, a line each, but for one of them.

    Args:
        runs: where their run files are.
        launch: what they have in common.
        began: when the first of them was started; no older file is looked at.
        but: the one that was told of already.
        folder: where the user is.
    """
    lines = []
    for path in sorted(path for path in runs.glob("*" + SUFFIX) if path != but and path.stat().st_mtime >= began - 1):
        try:
            with Run.open(path) as run:
                if run.meta.get("launch") == launch:
                    ranks = f"{run.meta['job']['size']} ranks, " if run.meta.get("job") else ""
                    steps = plural(len(run.steps()), "step")
                    lines.append(f"run     {shown(path, folder)} ({ranks}{steps}, {run.status})")
        except RunFileError:
            continue
    return lines


def _wait_for_ranks(run: Run) -> None:
    """Give the other ranks of a job, which end at about the same time, the time to close their files."""
    deadline = time.monotonic() + PATIENCE
    while run.ranks_writing and time.monotonic() < deadline:
        time.sleep(0.1)


def _ranks(data: RunData) -> Iterator[str]:
    if data.ranks is not None:
        yield f"ranks   {data.ranks.size}{'' if data.ranks.problems else ', joined'}"
        if data.meta.get("shards"):
            norms = np.concatenate([np.zeros(0), *(optimizer.norms for optimizer in data.optimizers)])
            end = "where it is known last" if data.ranks.problems else "at the end"
            most = norms.max(initial=0.0, where=np.isfinite(norms))
            yield f"norm    {f'{norms[-1]:.4g} {end}, at most {most:.4g}' if len(norms) else 'not known'}"
        for problem in data.ranks.problems:
            yield f"ranks   {problem}"


def _still_writing(run: str) -> Iterator[str]:
    yield f"ranks   some still write, and what they have not written is not in this: gradclip report {run} later"


def _findings(findings: Sequence[Finding], run: str) -> Iterator[str]:
    """The gravest findings, a line each."""
    if not findings:
        yield f"checks  nothing found wrong ({len(CHECKS)} checks)"
    for finding in findings[:LEADING]:
        where = f" ({finding.symptom.where})" if finding.symptom.where else ""
        yield f"found   {finding.name}: {finding.symptom.sentence}{where}"
    if (rest := len(findings) - LEADING) > 0:
        yield f"found   {rest} more: gradclip check {run}"


def _page(data: RunData, findings: Sequence[Finding], page: Path | None, folder: str) -> Iterator[str]:
    """Write the page, and say where it is."""
    if page is None:
        yield f"run     {shown(data.path, folder)}"
        return
    try:
        from gradclip.report.page import write
        from gradclip.report.run_page import run_page

        yield f"report  {shown(write(run_page(data, findings), page), folder)}"
    except Exception as error:
        yield f"run     {shown(data.path, folder)}"
        yield f"report  could not be written: {error}"


def main() -> None:
    """Write the lines to standard output, as JSON: they may hold any character."""
    run, page, folder, runs, launch, began = sys.argv[1:]
    lines = closing_lines(Path(run), Path(page) if page else None, folder) if run else []
    if launch:
        lines += started_lines(Path(runs), launch, float(began), Path(run) if run else None, folder)
    json.dump(lines, sys.stdout)
