"""How commands speak: tables and progress on stdout, one red sentence on stderr when the user must change something."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from gradclip._write import check_writable

if TYPE_CHECKING:
    from gradclip.report.page import Page

__all__ = ["console", "fail", "writable", "write_page"]


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
    try:
        check_writable(path)
    except FileExistsError:
        fail(f"cannot write {path}: {path.parent} is a file, not a folder; name another file with --out")
    except OSError as error:
        _cannot_write(path, error)
    return path


def write_page(page: Page, path: Path) -> None:
    """Write a page and say where it is."""
    from gradclip.report.page import write

    try:
        written = write(page, path)
    except OSError as error:
        _cannot_write(path, error)
    console().print(f"\nPage: {written}", soft_wrap=True, markup=False)


def _cannot_write(path: Path, error: OSError) -> NoReturn:
    fail(f"cannot write {path}: {error.strerror or error}; name another file with --out")
