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
    from gradclip.watch.observe.session import Session
    from gradclip.watch.start.child_processes import ChildProcesses
    from gradclip.watch.start.watched_process import WatchedProcess

__all__ = ["AtExit"]


class AtExit:
    """Say at exit what was recorded, or loudly that nothing was.

    Of a job, the first rank says it; of processes that a watched one started, that one.

    Args:
        settings: what `gradclip run` was asked for, as JSON.
        path: where modules are found, without the folder of the script.
    """

    def __init__(self, settings: str, path: Sequence[str]) -> None:
        self._settings = Settings.from_json(settings)
        self._closing = ClosingProcess(sys.executable, path, self._settings)
        self._watching: WatchedProcess | None = None
        self._children: ChildProcesses | None = None
        self._pid = os.getpid()
        self._problem = "PyTorch could not be watched"
        self._ended = False

    def start(self) -> None:
        """PyTorch is there: start watching."""
        from gradclip.watch.start.child_processes import ChildProcesses
        from gradclip.watch.start.watched_process import WatchedProcess

        try:
            self._watching = WatchedProcess(self._settings)
            self._children = ChildProcesses(self._settings, self._forked, self._child_ended)
        except Exception as error:  # training must run, whatever is wrong here
            self._problem = f"{type(error).__name__}: {error}"
        atexit.register(self._at_exit)

    def _forked(self, settings: Settings) -> None:
        """This is a child that was just forked."""
        self._settings, self._pid, self._ended = settings, os.getpid(), False
        if self._watching is not None:
            self._watching.forked(settings)

    def _child_ended(self, code: int) -> None:
        """The work of a process of ``multiprocessing`` is over: its exit code tells of an exception that it has caught."""
        self._end(RuntimeError if code else None)

    def _at_exit(self) -> None:
        error = getattr(sys, "last_value", None)  # the interpreter keeps the exception that nobody caught
        self._end(None if error is None else type(error))

    def _end(self, error: type[BaseException] | None) -> None:
        if os.getpid() != self._pid or self._ended:
            return
        self._ended = True
        try:
            self._say_all(error)
        except BaseException as wrong:  # Ctrl-C, too: how the script ended is settled
            print_messages([f"the end of the run could not be recorded: {type(wrong).__name__}: {wrong}"])

    def _say_all(self, error: type[BaseException] | None) -> None:
        watching = self._watching
        if watching is None:
            print_messages([f"nothing was recorded: {self._problem}."])
            return
        ending = watching.close(error)
        run = watching.run
        if run is None or run.path is None:
            self._say_nothing_seen(None if run is None else run.session, watching.problems)
            return
        if not run.speaks:
            return
        where = shown(run.path, self._settings.cwd)
        not_seen = no_clipping(run.session)
        print_messages(summary(run.totals, ending, self._settings.clip, watching.left_out, run.steps_written, where, not_seen))
        print_messages(watching.problems)
        if run.steps_written:
            page = run.path.with_suffix(".html") if self._settings.report else None
            print_messages(self._closing.lines(run.path, page, self._started))

    @property
    def _started(self) -> bool:
        """Whether this process has started others that are watched, and is the one that says so."""
        return self._children is not None and self._children.watched > 0 and not self._settings.child

    def _say_nothing_seen(self, session: Session | None, problems: Sequence[str]) -> None:
        """Say what there was of a training, where there was no step in this process."""
        if self._settings.child:
            return
        unseen = 0 if self._children is None else self._children.unseen
        found = self._closing.lines(None, None, True) if self._started else []
        if found:
            print_messages(["this process did not train; those that it started did:", *found, *problems])
            return
        watched = 0 if self._children is None else self._children.watched
        print_messages(["NOTHING WAS RECORDED.", *problems] if problems else no_steps(session, unseen, watched))
