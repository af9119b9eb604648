"""A watched process: the run file, the recorder, the session and the patches, put together."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from gradclip.clipping import Clipping
from gradclip.record.writer import RunWriter
from gradclip.watch.launch import Settings
from gradclip.watch.patches import Patches
from gradclip.watch.recorder import Recorder
from gradclip.watch.session import Session
from gradclip.watch.status import StatusLine
from gradclip.watch.summary import summary

__all__ = ["Watching"]


class Watching:
    """Watch this process until it is closed.

    Args:
        settings: what was asked for.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        clip = None if settings.clip is None else Clipping.parse(settings.clip)
        meta = {
            "title": Path(settings.script).name,
            "clip": settings.clip,
            "framework": f"torch {torch.__version__}",
            "every": settings.every,
        }
        self._writer = RunWriter.create(Path(settings.folder).absolute(), meta, on_failure=_say)
        self._recorder = Recorder(self._writer)
        self._session = Session(self._recorder, settings.every)
        self._patches = Patches(self._session, clip, _say)
        self._status = StatusLine(self._recorder.totals) if settings.status else None

    @property
    def path(self) -> Path:
        """The run file."""
        return self._writer.path

    @property
    def saw_training(self) -> bool:
        """Whether any step was recorded."""
        return self._recorder.totals.steps > 0

    @property
    def backwards(self) -> int:
        """How often ``backward`` was called."""
        return self._session.backwards

    def close(self, ending: str, code: int | None) -> None:
        """The script is over: write the rest."""
        if self._status is not None:
            self._status.close()
        self._patches.remove()
        self._writer.update_meta(replaced_clips=self._patches.replaced)
        self._session.close(ending, code)

    def summary(self, ending: str) -> list[str]:
        """Return what was seen, in a few lines."""
        lines = summary(self._recorder.totals, ending, self._settings.clip, self._patches.replaced)
        return lines if self._writer.failed is None else [*lines, self._writer.failed]


def _say(sentence: str) -> None:
    print(f"gradclip: {sentence}", file=sys.__stderr__, flush=True)
