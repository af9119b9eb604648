"""``gradclip export``: a run in the formats of other tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gradclip.cli.run_files import RunPath, opened
from gradclip.cli.terminal import console, fail

__all__ = ["export"]


class Format(StrEnum):
    """What a run can be written as."""

    csv = "csv"
    parquet = "parquet"
    tensorboard = "tensorboard"


To = Annotated[Format, typer.Option("--to", help="The format.", show_default=False)]
Out = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where the files go.", show_default="a folder beside the run")]


def export(to: To, run: RunPath = None, out: Out = None) -> None:
    """Write a run as CSV, Parquet or TensorBoard files."""
    from gradclip.runs.export import ExportError
    from gradclip.runs.export import export as write

    with opened(run) as found:
        folder = out or found.path.with_name(f"{found.path.stem}-{to.value}")
        try:
            files = write(found, folder, to.value)
        except ExportError as error:
            fail(str(error))
    for file in files:
        console().print(str(file), soft_wrap=True, markup=False)
