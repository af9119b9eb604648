"""``gradclip list``: the runs of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradclip.cli.run_files import refused

if TYPE_CHECKING:
    from gradclip.runs import RunSummary

__all__ = ["list_"]

Folder = Annotated[Path, typer.Argument(help="Where the runs are.")]


def list_(folder: Folder = Path("runs")) -> None:
    """List the runs of a folder, the latest first."""
    from gradclip.cli.tables import print_parts
    from gradclip.report.table import Table
    from gradclip.runs import list_runs

    with refused():
        runs = list_runs(folder)
    if runs:
        print_parts([Table(str(folder), ("run", "began", "status", "title"), [_row(run) for run in runs])])
    else:
        print_parts([f"There is no run in {folder}; record one with: gradclip run train.py"])


def _row(run: RunSummary) -> tuple[str, ...]:
    from gradclip.diagnosis.formatting import local_time

    return run.path.name, local_time(run.created), run.status, run.title or run.problem
