"""A watched process: the run file, the recorder, the session and the patches, put together."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch

from gradclip.clipping import Clipping
from gradclip.runs.writer import RunWriter
from gradclip.watch.messages import print_messages
from gradclip.watch.observe.patches import Patches
from gradclip.watch.observe.replace_clipping import ReplaceClipping
from gradclip.watch.observe.session import Session
from gradclip.watch.record.null_writer import NullWriter
from gradclip.watch.record.recorder import Recorder, Totals
from gradclip.watch.record.status_line import StatusLine
from gradclip.watch.start.launch import Settings

__all__ = ["WatchedProcess"]


class WatchedProcess:
    """Watch this process until it is closed.

    Args:
        settings: what was asked for.
        records: False for the ranks of a distributed run that only clip.
    """

    def __init__(self, settings: Settings, records: bool = True) -> None:
        self._settings = settings
        self._problems: list[str] = []
        self._replacement = None if settings.clip is None else ReplaceClipping(Clipping.parse(settings.clip), self._problem)
        self._writer = self._new_writer() if records else NullWriter()
        self._recorder = Recorder(self._writer)
        self._session = Session(self._recorder, settings.every)
        self._patches = Patches(self._session, self._replacement, self._problem)
        self._status = StatusLine(self._recorder.totals) if settings.status and records else None

    def _new_writer(self) -> RunWriter:
        settings = self._settings
        meta = {
            "title": Path(settings.script).name,
            "clip": settings.clip,
            "framework": f"torch {torch.__version__}",
            "every": settings.every,
            "watched": True,
        }
        return RunWriter.create(Path(settings.folder).absolute(), meta, on_failure=lambda sentence: print_messages([sentence]))

    @property
    def path(self) -> Path:
        """The run file."""
        return self._writer.path

    @property
    def totals(self) -> Totals:
        """What was recorded so far, in numbers."""
        return self._recorder.totals

    @property
    def saw_training(self) -> bool:
        """Whether any step was recorded."""
        return self.totals.steps > 0

    def what_was_seen(self) -> str:
        """Say what there was of a training, where there was no step."""
        return f"backward() was called {self._session.backwards} times, and no optimizer of torch.optim stepped."

    def problems(self) -> list[str]:
        """Return what went wrong with the watching, each a sentence."""
        return [*self._problems, *([self._writer.failed] if self._writer.failed else [])]

    def close(self, ending: str, code: int | None) -> None:
        """The script is over: write the rest."""
        if self._status is not None:
            self._status.close()
        self._patches.remove()
        if self._problems:
            self._writer.update_meta(problems=self._problems)
        self._writer.update_meta(replaced_clips=self.left_out)
        self._session.close(ending, code)

    def discard(self) -> None:
        """Remove a file that holds no step."""
        if self._writer.failed is None:
            with contextlib.suppress(OSError):
                self.path.unlink()

    @property
    def left_out(self) -> int:
        """Calls of the script's own clipping that were replaced."""
        return 0 if self._replacement is None else self._replacement.left_out

    def _problem(self, sentence: str) -> None:
        self._problems.append(sentence)
        print_messages([sentence])
