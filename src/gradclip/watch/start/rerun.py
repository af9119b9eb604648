"""Run a recorded script once more, as it was started, with another clipping or with the same."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradclip.runs import list_runs
from gradclip.watch.start.launch import Settings, environment

__all__ = ["RerunError", "command_of", "refuse_foreign", "rerun"]


class RerunError(RuntimeError):
    """A recorded script cannot be run again; says why."""


def command_of(meta: Mapping[str, Any]) -> list[str]:
    """Return the command line a run was started with.

    Raises:
        RerunError: the run was not recorded by ``gradclip run``, or its script or folder is not there.
    """
    command, cwd = meta.get("command"), meta.get("cwd")
    if meta.get("job"):
        raise RerunError("it is one of several processes that trained together, and cannot be run again by itself")
    if not meta.get("watched") or not isinstance(command, list) or not isinstance(cwd, str):
        raise RerunError("only what gradclip run has recorded can be run again: start it with gradclip run train.py")
    if not os.path.isdir(cwd):
        raise RerunError(f"the folder it was started in is gone: {cwd}")
    return [str(word) for word in command]


def refuse_foreign(run: Path) -> None:
    """Refuse a run file that somebody else has written, or may write: its command is not the user's own.

    Raises:
        RerunError: the file, or one of SQLite's beside it, belongs to another user.
    """
    if os.name != "posix":
        return
    for part in (run, *(run.with_name(run.name + end) for end in ("-wal", "-shm", "-journal"))):
        if part.exists() and part.stat().st_uid != os.geteuid():
            raise RerunError(
                f"{part} belongs to {_owner(part)}, so the command in it may not be yours, and it is not run; "
                "to run it all the same, look at it with gradclip report, and replay a copy of your own"
            )


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:  # a number without a name
        return f"user {path.stat().st_uid}"


def rerun(meta: Mapping[str, Any], folder: Path, clip: str | None) -> Path:
    """Run a recorded script again under watch and wait for its end.

    What the script prints is not shown; what it writes, it writes again.

    Args:
        meta: what is noted of the recorded run.
        folder: a folder of its own for the new run.
        clip: a recipe that takes the place of the script's own clipping; None leaves the script as it is.

    Returns:
        The new run file; whether the script ended well is in it.

    Raises:
        RerunError: the script cannot be started, or recorded no step.
    """
    command = command_of(meta)
    title, every = str(meta.get("title") or "script"), int(meta.get("every") or 1)
    settings = Settings(title, clip, every, folder=str(folder.absolute()), report=False, status=False, cwd=meta["cwd"])
    try:
        done = subprocess.run(
            command, cwd=meta["cwd"], env=environment(settings), stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, check=False,
        )  # fmt: skip
    except OSError as error:
        raise RerunError(f"{command[0]} cannot be started: {error.strerror or error}") from error
    runs = [run for run in list_runs(folder) if not run.problem] if folder.is_dir() else []
    if not runs:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = [line for line in lines if not line.startswith("gradclip:")][-1:] or lines[:1]
        reason = said[0].removeprefix("gradclip: ") if said else "it printed no error"
        raise RerunError(f"run again, the script recorded no step (exit code {done.returncode}): {reason}")
    return runs[0].path
