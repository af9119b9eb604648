"""How commands speak: tables and progress on stdout, one red sentence on stderr when the user must change something."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console
from rich.text import Text

__all__ = ["console", "fail", "writable"]


_PIPE_WIDTH = 160


def console() -> Console:
    """Stdout as it is now; a pipe has no width of its own and gets a generous one, unless COLUMNS says otherwise."""
    out = Console(highlight=False, emoji=False)
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = _PIPE_WIDTH
    return out


def fail(sentence: str, code: int = 2) -> NoReturn:
    """Say what was wrong and what to write instead, and exit with code 2, or another."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(sentence, style="red"))
    raise typer.Exit(code)


def writable(path: Path) -> Path:
    """Make the folders of a file and check that it can be written, before hours are spent on what goes into it."""
    existed = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except FileExistsError:
        fail(f"cannot write {path}: {path.parent} is a file, not a folder; name another file with --out")
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror or error}; name another file with --out")
    return path
