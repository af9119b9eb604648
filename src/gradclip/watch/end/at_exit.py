"""What runs when a watched script exits: the run file is closed, and what was seen is printed, with where the report is.

Nothing is imported here that was not imported before (``closing_process.py`` says why).
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gradclip.watch.end.closing_process import ClosingProcess
from gradclip.watch.end.not_seen import no_clipping, no_steps
from gradclip.watch.end.summary import summary
from gradclip.watch.messages import print_messages, shown
from gradclip.watch.start.launch import Settings

if TYPE_CHECKING:
    from gradclip.watch.start.watched_process import WatchedProcess
    from gradclip.watch.start.watched_run import WatchedRun

__all__ = ["AtExit"]


class AtExit:
    """Say at exit what was recorded, or loudly that nothing was.

    Args:
        settings: what `gradclip run` was asked for, as JSON.
        path: where modules are found, without the folder of the script.
    """

    def __init__(self, settings: str, path: Sequence[str]) -> None:
        self._settings = Settings.from_json(settings)
        self._closing = ClosingProcess(sys.executable, path, self._settings.cwd)
        self._watching: WatchedProcess | None = None
        self._first = os.environ.get("RANK", "0") == "0"
        self._pid = os.getpid()
        self._problem = "PyTorch could not be watched"

    def start(self) -> None:
        """PyTorch is there: start watching. Of the ranks of a distributed run the first one records, and all of them clip."""
        from gradclip.watch.start.watched_process import WatchedProcess

        if not self._first and self._settings.clip is None:
            return
        try:
            self._watching = WatchedProcess(self._settings, records=self._first)
        except Exception as error:  # training must run, whatever is wrong here
            self._problem = f"{type(error).__name__}: {error}"
        atexit.register(self._at_exit)

    def _at_exit(self) -> None:
        if os.getpid() != self._pid or not self._first:
            return
        try:
            self._say_all()
        except BaseException as error:  # Ctrl-C, too: how the script ended is settled
            print_messages([f"the end of the run could not be recorded: {type(error).__name__}: {error}"])

    def _say_all(self) -> None:
        watching = self._watching
        if watching is None:
            print_messages([f"nothing was recorded: {self._problem}."])
            return
        error = getattr(sys, "last_value", None)  # the interpreter keeps the exception that nobody caught
        ending = watching.close(None if error is None else type(error))
        run = watching.run
        if run is None or not run.totals.steps:
            print_messages([*_nothing_seen(run), *watching.problems])
            return
        where = shown(run.path, self._settings.cwd)
        not_seen = no_clipping(run.session)
        print_messages(summary(run.totals, ending, self._settings.clip, watching.left_out, run.steps_written, where, not_seen))
        print_messages(watching.problems)
        if not run.steps_written:
            return
        print_messages(self._closing.lines(run.path, run.path.with_suffix(".html") if self._settings.report else None))


def _nothing_seen(run: WatchedRun | None) -> list[str]:
    """Say what there was of a training, where there was no step, and remove the file that holds none."""
    if run is not None:
        run.discard()
    return no_steps(None if run is None else run.session)
