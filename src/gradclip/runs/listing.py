"""List the run files of a folder."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from gradclip.runs.reader import Run
from gradclip.runs.schema import SUFFIX, RunFileError

__all__ = ["RunSummary", "list_runs"]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One line of a list of runs."""

    path: Path
    status: str
    """As ``Run.status`` gives it; ``unreadable`` where the file cannot be read."""
    title: str = ""
    created: float = 0.0
    """Seconds since the epoch."""
    problem: str = ""
    """Why it cannot be read."""


def list_runs(folder: str | os.PathLike[str] = "runs") -> list[RunSummary]:
    """List the run files of a folder, the latest first; a file that cannot be read is listed with the reason.

    Raises:
        RunFileError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise RunFileError(f"there is no folder {folder}; runs are recorded by gradclip run, into runs/ unless told otherwise")
    found = []
    for path in Path(folder).glob("*" + SUFFIX):
        try:
            with Run.open(path) as run:
                meta = run.meta
                found.append(RunSummary(path, run.status, str(meta.get("title", "")), float(meta.get("created", 0.0))))
        except RunFileError as error:
            found.append(RunSummary(path, "unreadable", created=_changed(path), problem=str(error)))
    return sorted(found, key=lambda run: (run.created, run.path), reverse=True)


def _changed(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0
