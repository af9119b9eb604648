"""Note every function of a package when another file first calls it; runs in any interpreter, so it needs nothing installed."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from types import FrameType

__all__ = ["Entries", "Entry", "write_to"]

Entry = tuple[str, str]
"""A file of the package, as in ``torch/plan.py``, and the qualified name of a function in it."""


class Entries:
    """A profile function (see :func:`sys.setprofile`).

    Calls within one file are not noted, nor is what runs while a module is imported.

    Args:
        package: the folder of the package.
        note: is called with each new entry.
    """

    def __init__(self, package: str, note: Callable[[Entry], object]) -> None:
        self._package = os.path.join(package, "")
        self._note = note
        self._seen: set[tuple[str, str, int]] = set()

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Note a call, if it is a new one from another file."""
        code = frame.f_code
        key = code.co_filename, code.co_qualname, threading.get_ident()
        if event != "call" or not self._within(frame) or key in self._seen:
            return
        callers = self._callers(frame)
        if any(_imports(one) for one in (frame, *callers)) or any(one.f_code.co_filename == key[0] for one in callers[:1]):
            return
        self._seen.add(key)
        self._note((key[0][len(self._package) :].replace(os.sep, "/"), key[1]))

    def _within(self, frame: FrameType) -> bool:
        return frame.f_code.co_filename.startswith(self._package)

    def _callers(self, frame: FrameType) -> list[FrameType]:
        """The frames of the package below this one, the nearest first."""
        found, caller = [], frame.f_back
        while caller is not None:
            if self._within(caller):
                found.append(caller)
            caller = caller.f_back
        return found


def write_to(log: str, package: str) -> None:
    """Write the entries of this process and its threads to the end of a file, one JSON list a line.

    Each is ``[process, is the main thread, file, function]``, and is written at once, as a process may end or become
    another program at any time.
    """

    def note(entry: Entry) -> None:
        main = threading.current_thread() is threading.main_thread()
        with open(log, "a") as file:
            file.write(json.dumps([os.getpid(), main, *entry]) + "\n")

    entries = Entries(package, note)
    threading.setprofile(entries)
    sys.setprofile(entries)


def _imports(frame: FrameType) -> bool:
    return frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__"
