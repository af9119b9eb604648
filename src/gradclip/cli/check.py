"""``gradclip check``: what is wrong with a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gradclip.cli.run_files import RunPath, opened

if TYPE_CHECKING:
    from gradclip.diagnosis.finding import Finding
    from gradclip.diagnosis.readings.run_data import RunData
    from gradclip.report.notice import Notice
    from gradclip.report.table import Table

__all__ = ["check"]

AsJson = Annotated[bool, typer.Option("--json", help="Print every finding as JSON.")]
ExitZero = Annotated[bool, typer.Option("--exit-zero", help="Exit with 0 whatever was found.")]


def check(run: RunPath = None, as_json: AsJson = False, exit_zero: ExitZero = False) -> None:
    """Name what is wrong with a run, with evidence and the fix; exits with 1 if there is an error among it."""
    from gradclip.cli.tables import print_parts
    from gradclip.diagnosis.ranking import check as run_checks
    from gradclip.diagnosis.readings.run_data import read_run

    with opened(run) as found:
        data = read_run(found)
    findings = run_checks(data)
    if as_json:
        _print_json(data, findings)
    else:
        print_parts(_parts(data, findings))
    if not exit_zero and any(finding.symptom.severity == "error" for finding in findings):
        raise typer.Exit(1)


def _print_json(run: RunData, findings: Sequence[Finding]) -> None:
    import json

    ranks = {} if run.ranks is None else {"ranks": run.ranks.size, "problems": list(run.ranks.problems)}
    answer = {"run": str(run.path), "status": run.status, **ranks, "findings": [finding.to_json() for finding in findings]}
    typer.echo(json.dumps(answer, indent=2))


def _parts(run: RunData, findings: Sequence[Finding]) -> Iterator[str | Table | Notice]:
    from gradclip.diagnosis.formatting import plural
    from gradclip.diagnosis.registry import CHECKS
    from gradclip.report.findings import findings_text

    steps = plural(run.length, "step")
    for problem in () if run.ranks is None else run.ranks.problems:
        yield f"{run.title}: {problem}."
    if not findings:
        yield f"{run.title}: nothing found wrong in {steps} ({len(CHECKS)} checks)."
        return
    yield f"{run.title}: {plural(len(findings), 'finding')} in {steps}."
    yield from findings_text(findings, len(run.optimizers) > 1)
    yield f"What each means: gradclip explain {findings[0].name}"
