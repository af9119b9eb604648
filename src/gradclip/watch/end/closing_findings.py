"""What is found wrong with a run that has just ended, in a few lines.

They are imported at the start, though they are needed at the end: after Ctrl-C, an import that executes a string (as every
dataclass does) makes Python forget what ended the script, and exit with 1.
"""

from __future__ import annotations

from gradclip.diagnosis.finding import Finding
from gradclip.diagnosis.ranking import LEADING, check
from gradclip.diagnosis.readings.run_data import read_run
from gradclip.diagnosis.registry import CHECKS
from gradclip.runs import Run

__all__ = ["closing_findings"]


def closing_findings(path: str) -> list[str]:
    """Check a run file, and return the gravest findings, a line each; whatever goes wrong here is a line, too."""
    try:
        return _lines(path)
    except Exception as error:  # the summary must be said, whatever is wrong with the file
        return [f"checks  could not look at the run: {error}"]


def _lines(path: str) -> list[str]:
    with Run.open(path) as run:
        findings = check(read_run(run))
    if not findings:
        return [f"checks  nothing found wrong ({len(CHECKS)} checks)"]
    rest = len(findings) - LEADING
    more = [f"found   {rest} more: gradclip check {path}"] if rest > 0 else []
    return [*map(_line, findings[:LEADING]), *more]


def _line(finding: Finding) -> str:
    where = f" ({finding.symptom.where})" if finding.symptom.where else ""
    return f"found   {finding.name}: {finding.symptom.sentence}{where}"
