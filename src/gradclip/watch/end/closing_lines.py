"""What is said last of a run that has just ended: what is wrong with it, and where its page is; in a process of its own.

``closing_process.py`` starts it. Nothing here is imported in the process of the script.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from gradclip.diagnosis.finding import Finding
from gradclip.diagnosis.ranking import LEADING, check
from gradclip.diagnosis.readings.run_data import RunData, read_run
from gradclip.diagnosis.registry import CHECKS
from gradclip.runs import Run
from gradclip.watch.messages import shown

__all__ = ["closing_lines", "main"]


def closing_lines(run: Path, page: Path | None, folder: str) -> list[str]:
    """Check a run once, write its page if one is asked for, and say both, a line each; whatever goes wrong is a line, too.

    Args:
        run: the run file.
        page: where the page goes; None for no page.
        folder: where the user is, whom paths are told from there.
    """
    try:
        with Run.open(run) as opened:
            data = read_run(opened)
            findings = check(data)
            return [*_findings(findings, shown(run, folder)), *_page(data, findings, page, folder)]
    except Exception as error:
        return [f"checks  could not look at the run: {error}", f"run     {shown(run, folder)}"]


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
    run, page, folder = sys.argv[1:]
    json.dump(closing_lines(Path(run), Path(page) if page else None, folder), sys.stdout)
