"""A writer that keeps nothing: what the other ranks of a distributed run write to."""

from __future__ import annotations

import os
from pathlib import Path

from gradclip.runs.writer import RunWriter

__all__ = ["NullWriter"]


class NullWriter(RunWriter):
    """Takes everything and keeps nothing."""

    def __init__(self) -> None:
        self.path, self.failed = Path(os.devnull), None

    def close(self, status: str = "finished", exit_code: int | None = None) -> None:
        """There is nothing to close."""

    @property
    def recording(self) -> bool:
        """Never."""
        return False
