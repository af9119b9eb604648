"""What a watched process records: the run file, the recorder and the session, put together."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import torch

from gradclip.runs.process import ending_of
from gradclip.runs.totals import Totals
from gradclip.runs.writer import RunWriter
from gradclip.watch.messages import print_messages
from gradclip.watch.observe.session import Session
from gradclip.watch.record.recorder import Recorder
from gradclip.watch.record.status_line import StatusLine
from gradclip.watch.start.job import Job, job_file, job_of
from gradclip.watch.start.launch import Settings

__all__ = ["WatchedRun"]

EXIT_CODES: Final = {"finished": None, "interrupted": 130, "crashed": 1}
"""What the interpreter exits with; None where a script ran to its end, or called ``sys.exit``, which leaves no trace."""


class WatchedRun:
    """Record until it is closed, into a file that is opened after the first step: by then a process group is there.

    Args:
        settings: what was asked for.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._began = settings, time.time()
        self._writer: RunWriter | None = None
        self._status: StatusLine | None = None
        self.job: Job | None = None
        """The job that this process is a rank of, once a step is over."""
        self.session = Session(Recorder(self._open), settings.every)

    @property
    def path(self) -> Path | None:
        """The run file; None before the first step."""
        return None if self._writer is None else self._writer.path

    @property
    def totals(self) -> Totals:
        """What was recorded so far, in numbers."""
        return self.session.recorder.totals

    @property
    def speaks(self) -> bool:
        """Whether this process says what was recorded: of a job, the first rank; of others, the one that started them."""
        return self.job.rank == 0 if self.job is not None else not self._settings.child

    @property
    def steps_written(self) -> int:
        """How many of the steps are on the disk."""
        return 0 if self._writer is None else self._writer.steps_written

    @property
    def problem(self) -> str | None:
        """Why recording stopped, if it did."""
        return None if self._writer is None else self._writer.failed

    def close(self, error: type[BaseException] | None, meta: dict[str, Any]) -> str:
        """The script is over: write the rest, with further meta values, and return how it ended."""
        if self._status is not None:
            self._status.close()
        ending = ending_of(error)
        self.session.recorder.note(**meta)
        self.session.close(ending, EXIT_CODES[ending])
        return ending

    def _open(self) -> RunWriter:
        settings = self._settings
        self.job = job_of(settings)
        job, new_path = job_file(self.job, settings.began)
        meta = {
            "title": Path(settings.script).name,
            "clip": settings.clip,
            "framework": f"torch {torch.__version__}",
            "every": settings.every,
            "created": self._began,
            "watched": not settings.child,
            "launch": settings.launch,
            "cwd": settings.cwd,
            **job,
        }
        if settings.status and self.speaks:
            self._status = StatusLine(self.totals)
        # It is closed at exit by whoever watches the process, behind what the script itself does at exit.
        self._writer = RunWriter.create(
            settings.folder,
            meta,
            new_path=new_path,
            on_failure=lambda sentence: print_messages([sentence]),
            close_at_exit=False,
        )
        return self._writer
