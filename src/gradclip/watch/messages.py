"""What the watch prints: whole sentences on standard error, each marked as gradclip's."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

__all__ = ["print_messages", "shown"]


def print_messages(sentences: Iterable[str], stream: TextIO | None = None) -> None:
    """Print each sentence on a line, on the process's own standard error, which no script has replaced, or another stream.

    Where it is closed, nobody listens, and nothing is printed.
    """
    stream = stream or sys.__stderr__
    if stream is None:
        return
    with contextlib.suppress(OSError, ValueError):
        for sentence in sentences:
            print(f"gradclip: {sentence}", file=stream, flush=True)


def shown(path: Path, folder: str) -> str:
    """Return an absolute path as it is typed in a folder: relative to it where it lies below.

    >>> shown(Path("/home/me/runs/a.html"), "/home/me"), shown(Path("/tmp/a.html"), "/home/me")
    ('runs/a.html', '/tmp/a.html')
    """
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # on another drive
        return str(path)
    return str(path) if relative.startswith("..") else relative
