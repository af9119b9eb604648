"""``gradclip report``: what happened in a run, as a page or in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradclip.cli.run_files import RunPath, opened
from gradclip.cli.terminal import console, fail, writable, write_page

if TYPE_CHECKING:
    from gradclip.runs import Run

__all__ = ["report"]

Out = Annotated[Path | None, typer.Option(help="The HTML page.", show_default="beside the run")]
AsText = Annotated[bool, typer.Option("--text", help="Tell it in the terminal instead.")]


def report(run: RunPath = None, out: Out = None, text: AsText = False) -> None:
    """Write a page about a run: verdict, timeline, layers, thresholds, and the order of events."""
    with opened(run) as found:
        if text:
            _print(found)
        else:
            _write(found, _page(out or found.path.with_suffix(".html"), found.path))


def _page(page: Path, run: Path) -> Path:
    """Where the page goes, which is never over the run."""
    if page.exists() and page.samefile(run):
        fail(f"{page} is the run itself; name another file with --out")
    return writable(page)


def _write(run: Run, path: Path) -> None:
    from gradclip.cli.tables import plain
    from gradclip.diagnosis.ranking import check
    from gradclip.diagnosis.readings.run_data import read_run
    from gradclip.report.run_page import run_page

    data = read_run(run)
    page = run_page(data, check(data))
    console().print(plain(page.verdict), soft_wrap=True, markup=False)
    write_page(page, path)


def _print(run: Run) -> None:
    from gradclip.cli.tables import print_parts
    from gradclip.diagnosis.ranking import check
    from gradclip.diagnosis.readings.run_data import read_run
    from gradclip.report.run_text import MOST_LAYERS, run_text

    with run.snapshot():
        findings = check(read_run(run))
        print_parts(run_text(read_run(run, MOST_LAYERS), findings))
