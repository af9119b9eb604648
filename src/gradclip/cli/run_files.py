"""Which run a command is about, opened or refused in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradclip.cli.terminal import fail

if TYPE_CHECKING:
    from gradclip.runs import Run

__all__ = ["RunPath", "opened", "refused"]

RunPath = Annotated[
    Path | None,
    typer.Argument(
        metavar="RUN", help="A run file, or a folder, which stands for its latest.", show_default="the latest in runs/"
    ),
]


DEFAULT = Path("runs")


@contextmanager
def refused() -> Iterator[None]:
    """Turn a file that is no run, or cannot be read, into one sentence."""
    from gradclip.runs import RunFileError

    try:
        yield
    except RunFileError as error:
        fail(str(error))


@contextmanager
def opened(path: Path | None) -> Iterator[Run]:
    """Open a run; what goes wrong while it is read is one sentence, too."""
    from gradclip.runs import Run

    with refused(), Run.open(_latest(DEFAULT if path is None else path)) as run:
        yield run


def _latest(path: Path) -> Path:
    """The latest run of a folder, unreadable ones aside where there are others."""
    from gradclip.runs import list_runs

    if path != DEFAULT and not path.is_dir():
        return path
    runs = list_runs(path)
    if not runs:
        fail(f"there is no run in {path}; record one with: gradclip run train.py")
    return next((run for run in runs if not run.problem), runs[0]).path
