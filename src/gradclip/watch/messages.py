"""What the watch prints: whole sentences on standard error, each marked as gradclip's."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TextIO

__all__ = ["print_messages"]


def print_messages(sentences: Iterable[str], stream: TextIO | None = None) -> None:
    """Print each sentence on a line, on the process's own standard error, which no script has replaced, or another stream."""
    for sentence in sentences:
        print(f"gradclip: {sentence}", file=stream or sys.__stderr__, flush=True)
