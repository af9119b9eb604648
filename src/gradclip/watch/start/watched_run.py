"""What a watched process records: the run file, the recorder and the session, put together."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Final

import torch

from gradclip.runs.process import ending_of
from gradclip.runs.totals import Totals
from gradclip.runs.writer import RunWriter
from gradclip.watch.messages import print_messages
from gradclip.watch.observe.session import Session
from gradclip.watch.record.null_writer import NullWriter
from gradclip.watch.record.recorder import Recorder
from gradclip.watch.record.status_line import StatusLine
from gradclip.watch.start.launch import Settings

__all__ = ["WatchedRun"]

EXIT_CODES: Final = {"finished": None, "interrupted": 130, "crashed": 1}
"""What the interpreter exits with; None where a script ran to its end, or called ``sys.exit``, which leaves no trace."""


class WatchedRun:
    """Record until it is closed.

    Args:
        settings: what was asked for.
        records: False for the ranks of a distributed run that only clip.
    """

    def __init__(self, settings: Settings, records: bool) -> None:
        self._writer = _new_writer(settings) if records else NullWriter()
        recorder = Recorder(self._writer)
        self.session = Session(recorder, settings.every)
        self._status = StatusLine(recorder.totals) if settings.status and records else None

    @property
    def path(self) -> Path:
        """The run file."""
        return self._writer.path

    @property
    def totals(self) -> Totals:
        """What was recorded so far, in numbers."""
        return self.session.recorder.totals

    @property
    def steps_written(self) -> int:
        """How many of the steps are on the disk."""
        return self._writer.steps_written

    @property
    def problem(self) -> str | None:
        """Why recording stopped, if it did."""
        return self._writer.failed

    def close(self, error: type[BaseException] | None, meta: dict[str, Any]) -> str:
        """The script is over: write the rest, with further meta values, and return how it ended."""
        if self._status is not None:
            self._status.close()
        ending = ending_of(error)
        self._writer.update_meta(**meta)
        self.session.close(ending, EXIT_CODES[ending])
        return ending

    def discard(self) -> None:
        """Remove a file that holds no step."""
        if self._writer.failed is None:
            with contextlib.suppress(OSError):
                self.path.unlink()


def _new_writer(settings: Settings) -> RunWriter:
    meta = {
        "title": Path(settings.script).name,
        "clip": settings.clip,
        "framework": f"torch {torch.__version__}",
        "every": settings.every,
        "watched": True,
        "cwd": settings.cwd,
    }
    # It is closed at exit from here, behind what the script itself does at exit.
    return RunWriter.create(settings.folder, meta, on_failure=lambda sentence: print_messages([sentence]), close_at_exit=False)
