"""``gradclip check``: what is wrong with a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gradclip.cli.run_files import RunPath, opened

if TYPE_CHECKING:
    from gradclip.diagnosis.finding import Finding
    from gradclip.diagnosis.readings.run_data import Gathered
    from gradclip.report.notice import Notice
    from gradclip.report.table import Table

__all__ = ["check"]

AsJson = Annotated[bool, typer.Option("--json", help="Print every finding as JSON.")]
ExitZero = Annotated[bool, typer.Option("--exit-zero", help="Exit with 0 whatever was found.")]


def check(run: RunPath = None, as_json: AsJson = False, exit_zero: ExitZero = False) -> None:
    """Name what is wrong with a run, with evidence and the fix; exits with 1 if there is an error among it."""
    from gradclip.cli.tables import told
    from gradclip.diagnosis.ranking import check as look
    from gradclip.diagnosis.readings.run_data import gather

    with opened(run) as found:
        gathered = gather(found)
    findings = look(gathered)
    if as_json:
        _print_json(gathered, findings)
    else:
        told(_parts(gathered, findings))
    if not exit_zero and any(finding.symptom.severity == "error" for finding in findings):
        raise typer.Exit(1)


def _print_json(run: Gathered, findings: Sequence[Finding]) -> None:
    import json

    told = {"run": str(run.path), "status": run.status, "findings": [finding.to_json() for finding in findings]}
    typer.echo(json.dumps(told, indent=2))


def _parts(run: Gathered, findings: Sequence[Finding]) -> Iterator[str | Table | Notice]:
    from gradclip.diagnosis.formatting import plural
    from gradclip.diagnosis.registry import CHECKS
    from gradclip.report.findings import findings_text

    steps = plural(run.length, "step")
    if not findings:
        yield f"{run.title}: nothing found wrong in {steps} ({len(CHECKS)} checks)."
        return
    yield f"{run.title}: {plural(len(findings), 'finding')} in {steps}."
    yield from findings_text(findings, len(run.optimizers) > 1)
    yield f"What each means: gradclip findings {findings[0].name}"
