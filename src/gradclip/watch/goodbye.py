"""The end of a watched script: how it ended, what was seen, and where the report is."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradclip.watch.launch import Settings
    from gradclip.watch.watching import Watching

__all__ = ["Goodbye"]


class Goodbye:
    """Say at exit what was recorded, or loudly that nothing was.

    Args:
        settings: what `gradclip run` was asked for.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._watching: Watching | None = None
        self._pid = os.getpid()
        self._problem = ""
        atexit.register(self._at_exit)

    def watch(self) -> None:
        """PyTorch is there: start watching. Other ranks of a distributed run leave it to the first."""
        if os.environ.get("RANK", "0") != "0":
            atexit.unregister(self._at_exit)
            return
        from gradclip.watch.watching import Watching

        try:
            self._watching = Watching(self._settings)
        except Exception as error:  # training must run, whatever is wrong here
            self._problem = f"{type(error).__name__}: {error}"
        atexit.unregister(self._at_exit)
        atexit.register(self._at_exit)  # last in, first out: before the writer's own

    def _at_exit(self) -> None:
        if os.getpid() != self._pid:
            return
        try:
            self._say(self._lines())
        except Exception as error:
            self._say([f"the end of the run could not be recorded: {type(error).__name__}: {error}"])

    def _lines(self) -> list[str]:
        ending, code = _ending()
        if self._watching is None:
            reason = self._problem or "PyTorch was never imported"
            return [f"nothing was recorded: {reason}."]
        watching = self._watching
        watching.close(ending, code)
        if not watching.saw_training:
            return [
                "NOTHING WAS RECORDED: no training was seen. "
                f"backward() was called {watching.backwards} times, and no optimizer of torch.optim stepped.",
                "Gradients taken with torch.autograd.grad, or by another framework, cannot be watched from outside: "
                "use gradclip.record(model, optimizer), or call loss.backward().",
            ]
        return [*watching.summary(ending), *self._report(watching.path)]

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
        return [f"run     {_shown(run)}", f"report  could not be written: {made.stderr.strip().splitlines()[-1:]}"]

    def _say(self, lines: list[str]) -> None:
        for line in lines:
            print(f"gradclip: {line}", file=sys.__stderr__, flush=True)


def _ending() -> tuple[str, int | None]:
    """How the script ended: the interpreter keeps the exception that nobody caught."""
    error = getattr(sys, "last_value", None)
    if error is None:
        return "finished", None
    return ("interrupted", 130) if isinstance(error, KeyboardInterrupt) else ("crashed", 1)


def _shown(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
