"""``gradclip compare``: runs side by side."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from gradclip.cli.run_files import opened
from gradclip.cli.terminal import fail, writable, write_page

__all__ = ["compare"]

Runs = Annotated[list[Path], typer.Argument(metavar="A B [C]...", help="Two run files or more.", show_default=False)]
Out = Annotated[Path | None, typer.Option(help="Write an HTML page, too.", show_default=False)]


def compare(runs: Runs, out: Out = None) -> None:
    """Put runs side by side: losses, norms, clip rates, and time per step."""
    from gradclip.cli.tables import print_parts
    from gradclip.report.comparison import compare_page, compare_table, compared, verdict

    if len(runs) < 2:
        fail("name at least two runs: gradclip compare A B")
    path = writable(out) if out else None
    with ExitStack() as stack:
        found = compared([stack.enter_context(opened(run)) for run in runs])
    print_parts([verdict(found), compare_table(found)])
    if path:
        command = shlex.join(["gradclip", "compare", *map(str, runs), "--out", str(out)])
        write_page(compare_page(found, command), path)
