"""What runs when a watched script exits: the run file is closed, and what was seen is printed, with where the report is."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gradclip.runs.process import ending_of
from gradclip.watch.end.closing_findings import closing_findings
from gradclip.watch.end.summary import summary
from gradclip.watch.messages import print_messages
from gradclip.watch.start.launch import Settings

if TYPE_CHECKING:
    from gradclip.watch.start.watched_process import WatchedProcess

__all__ = ["AtExit"]

EXIT_CODES: Final = {"finished": None, "interrupted": 130, "crashed": 1}
"""What the interpreter exits with; None where a script ran to its end, or called ``sys.exit``, which leaves no trace."""


class AtExit:
    """Say at exit what was recorded, or loudly that nothing was.

    Args:
        settings: what `gradclip run` was asked for, as JSON.
    """

    def __init__(self, settings: str) -> None:
        self._settings = Settings.from_json(settings)
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
        atexit.register(self._at_exit)  # last in, first out: before the writer's own

    def _at_exit(self) -> None:
        if os.getpid() != self._pid or not self._first:
            return
        try:
            print_messages(self._lines())
        except Exception as error:
            print_messages([f"the end of the run could not be recorded: {type(error).__name__}: {error}"])

    def _lines(self) -> list[str]:
        watching = self._watching
        if watching is None:
            return [f"nothing was recorded: {self._problem}."]
        ending, code = _ending()
        watching.close(ending, code)
        if not watching.saw_training:
            watching.discard()
            return [
                f"NOTHING WAS RECORDED: no training was seen. {watching.what_was_seen()}",
                "Gradients taken with torch.autograd.grad and applied by hand, or by another framework, "
                "cannot be watched from outside.",
                *watching.problems(),
            ]
        return [
            *summary(watching.totals, ending, self._settings.clip, watching.left_out),
            *watching.problems(),
            *closing_findings(_shown(watching.path)),
            *self._report(watching.path),
        ]

    def _report(self, run: Path) -> list[str]:
        if not self._settings.report:
            return [f"run     {_shown(run)}"]
        page = run.with_suffix(".html")
        made = subprocess.run(
            [sys.executable, "-m", "gradclip", "report", str(run), "--out", str(page)],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode == 0:
            return [f"report  {_shown(page)}"]
        reason = made.stderr.strip().splitlines()[-1:] or ["no reason given"]
        return [f"run     {_shown(run)}", f"report  could not be written: {reason[0]}"]


def _ending() -> tuple[str, int | None]:
    """How the script ended: the interpreter keeps the exception that nobody caught."""
    error = getattr(sys, "last_value", None)
    ending = ending_of(None if error is None else type(error))
    return ending, EXIT_CODES[ending]


def _shown(path: Path) -> str:
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):  # the folder is gone, or on another drive
        return str(path)
    return str(path) if relative.startswith("..") else relative
