"""Where in the script things happen: file and line of each event, at its first time."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import torch

from gradclip.watch.observe.call_wrapper import FILE

__all__ = ["CallSites"]

MOST: Final = 100
"""A script whose details never repeat must not fill the file."""
NOT_THE_SCRIPT: Final = (
    os.path.join(os.path.dirname(torch.__file__), ""),
    os.path.join(Path(__file__).parents[2], ""),
    FILE,
    contextlib.__file__,
    functools.__file__,
)
"""How the files begin through which a call comes on its way from the script to here."""
LABS: Final = os.path.join(Path(__file__).parents[1], "labs", "")
"""The library's own experiments are scripts, too."""


class CallSites:
    """Remember where each event was seen first; every later one costs a look into a set.

    Args:
        note: is given all places, by ``"kind detail"``, whenever there is a new one.
    """

    def __init__(self, note: Callable[[Mapping[str, str]], object]) -> None:
        self._note = note
        self._start = _folder()
        self._seen = {("forward", "")}  # it is told of when backward is called, which is another line
        self._places: dict[str, str] = {}

    def see(self, kind: str, detail: str) -> None:
        """An event happens; the call comes from the script, through PyTorch and this library."""
        if (kind, detail) in self._seen or len(self._seen) > MOST:
            return
        self._seen.add((kind, detail))
        place = self._in_script()
        if place is not None:
            self._places[f"{kind} {detail}".strip()] = place
            self._note(self._places)

    def _in_script(self) -> str | None:
        frame = sys._getframe(1)
        while (name := frame.f_code.co_filename).startswith(NOT_THE_SCRIPT) and not name.startswith(LABS):
            if frame.f_back is None:
                return None
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
