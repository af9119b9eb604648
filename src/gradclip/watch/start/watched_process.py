"""A watched process: the patches from the moment PyTorch is there, and what they record from the first call that trains.

Only what the patches need is imported at first: a script that never trains, or trains later, does not wait for the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from gradclip.watch.messages import print_messages
from gradclip.watch.observe.patches import Patches
from gradclip.watch.start.launch import Settings

if TYPE_CHECKING:
    from gradclip.watch.observe.replace_clipping import ReplaceClipping
    from gradclip.watch.observe.session import Session
    from gradclip.watch.start.watched_run import WatchedRun

__all__ = ["WatchedProcess"]


class WatchedProcess:
    """Watch this process until it is closed.

    Args:
        settings: what was asked for.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.RLock()
        self.run: WatchedRun | None = None
        """None until something was called that trains."""
        self._inherited: WatchedRun | None = None
        """Of the process that this one was forked from: neither closed nor freed here, for its file is not this process's."""
        self.problems: list[str] = []
        """What went wrong with the watching, each a sentence."""
        self._replacement = None if settings.clip is None else _replacement(settings.clip, self._problem)
        self._patches = Patches(self._session, self._replacement, self._problem)

    def _session(self) -> Session:
        return (self.run or self._begin()).session

    def _begin(self) -> WatchedRun:
        from gradclip.watch.start.watched_run import WatchedRun

        with self._lock:  # of two threads that train, the first one
            if self.run is None:
                self.run = WatchedRun(self._settings)
            return self.run

    @property
    def left_out(self) -> int:
        """Calls of the script's own clipping that were replaced."""
        return 0 if self._replacement is None else self._replacement.left_out

    def close(self, error: type[BaseException] | None) -> str:
        """The script is over, ended by an exception or by none: write the rest, and return how it ended."""
        self._patches.remove()
        if self.run is None:
            return ""
        problems = {"problems": self.problems} if self.problems else {}
        ending = self.run.close(error, {**problems, "replaced_clips": self.left_out})
        if self.run.problem is not None:
            self.problems.append(self.run.problem)
        return ending

    def forked(self, settings: Settings) -> None:
        """This is a child that was just forked: what is recorded here is another run, begun when something trains."""
        self._settings, self._inherited = settings, self.run
        self._lock = threading.RLock()  # a thread that is not here may hold the other one
        self.run, self.problems = None, []
        self._patches.forked()

    def _problem(self, sentence: str) -> None:
        self.problems.append(sentence)
        print_messages([sentence])


def _replacement(clip: str, on_failure: Callable[[str], object]) -> ReplaceClipping:
    from gradclip.clipping import Clipping
    from gradclip.watch.observe.replace_clipping import ReplaceClipping

    return ReplaceClipping(Clipping.parse(clip), on_failure)
