"""Where in the script things happen: file and line of each call, at its first time."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
from pathlib import Path
from typing import Final

import torch

from gradclip.runs.schema import Event
from gradclip.watch.observe.call_wrapper import FILE

__all__ = ["CallSites"]

MOST: Final = 100
"""A script whose calls never repeat must not fill the file."""
MOST_LIMITS: Final = 50
"""With more events than this, a limit that is new is left out: where limits move, steps differ in nothing else."""
NOT_THE_SCRIPT: Final = (
    os.path.join(os.path.dirname(torch.__file__), ""),
    os.path.join(Path(__file__).parents[2], ""),
    FILE,
    contextlib.__file__,
    functools.__file__,
)
"""How the files begin through which a call comes on its way from the script to here."""
LABS: Final = os.path.join(Path(__file__).parents[2], "labs", "")
"""The library's own experiments are scripts, too."""


class CallSites:
    """Remember where each event was seen first; every later one costs a look into a dictionary."""

    def __init__(self) -> None:
        self._start = _folder()
        forward = Event("forward")
        self._seen = {forward: forward}  # it is told of when backward is called, which is another line

    def placed(self, event: Event) -> Event:
        """An event happens; return it with its place: the call comes from the script, through PyTorch and this library."""
        known = self._seen.get(event)
        if known is None and len(self._seen) > MOST_LIMITS and event.threshold not in (None, math.inf):
            event = event._replace(threshold=None)
            known = self._seen.get(event)
        if known is None and len(self._seen) <= MOST:
            known = self._seen[event] = event._replace(place=self._in_script())
        return known or event

    def _in_script(self) -> str:
        frame = sys._getframe(1)
        while (name := frame.f_code.co_filename).startswith(NOT_THE_SCRIPT) and not name.startswith(LABS):
            if frame.f_back is None:
                return ""
            frame = frame.f_back
        return f"{self._shown(frame.f_code.co_filename)}:{frame.f_lineno}"

    def _shown(self, name: str) -> str:
        """The path from the folder in which the run began, where the file lies in it; the script may go elsewhere meanwhile."""
        path = os.path.join(self._start, name)
        return os.path.relpath(path, self._start) if path.startswith(os.path.join(self._start, "")) else path


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # deleted under the program's feet
        return os.sep
