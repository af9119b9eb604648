"""Have a run that has just ended checked and its page written, by an interpreter that is started for it.

The checks are not imported in the process of the script: it would start later for them; and at its end nothing may be imported
any more, for after Ctrl-C an import that executes a string (as every dataclass does) makes Python forget what ended the
script, and exit with 1.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gradclip.watch.messages import shown
from gradclip.watch.start.launch import Settings

__all__ = ["ClosingProcess"]

ROOT: Final = str(Path(__file__).absolute().parents[3])
"""The folder that this package lies in."""
CODE: Final = """
import gc, json, sys
gc.disable()
sys.path += json.loads(sys.argv.pop())
import site
site.main()
from gradclip.watch.end.closing_lines import main
main()
"""
"""So short a process has nothing to collect. Isolated, the path holds the standard library alone; this package comes behind
it, and before all else: neither a ``json.py`` nor a ``gradclip.py`` in the current folder is taken for the real one."""


@dataclass(frozen=True)
class ClosingProcess:
    """An interpreter like the script's, without what lies in the script's folder."""

    executable: str
    path: Sequence[str]
    """Where modules are found, without the folder of the script."""
    settings: Settings
    """Of the run that has ended."""

    def lines(self, run: Path | None, page: Path | None, started: bool = False) -> list[str]:
        """Return what is to be said of a run file; what keeps it from being said is a line, too.

        Args:
            run: the run file of this process, if it has one.
            page: where its page goes, if one is wanted.
            started: say what processes have recorded that this one has started.
        """
        launch = self.settings.launch if started else ""
        words = [
            str(run or ""),
            str(page or ""),
            self.settings.cwd,
            self.settings.folder,
            launch,
            str(self.settings.began),
            json.dumps([ROOT, *self.path]),
        ]
        try:
            done = subprocess.run(
                [self.executable, "-I", "-S", "-c", CODE, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                env={**os.environ, "OMP_NUM_THREADS": "1"},  # NumPy's own threads would take longer to start than all its work
            )
            return list(json.loads(done.stdout)) if done.returncode == 0 else self._failed(run, page, _last_line(done.stderr))
        except Exception as error:
            return self._failed(run, page, str(error))
        except (KeyboardInterrupt, SystemExit):  # the latter from the script's own handler of a signal
            return self._failed(run, page, "interrupted")

    def _failed(self, run: Path | None, page: Path | None, reason: str) -> list[str]:
        if run is None:
            return [f"what they recorded cannot be listed here ({reason}); list it with: gradclip list {self.settings.folder}"]
        path, command = shown(run, self.settings.cwd), "check" if page is None else "report"
        return [f"run     {path}", f"{command}  not made ({reason}); make it with: gradclip {command} {path}"]


def _last_line(said: bytes) -> str:
    """The last of what a process has said to its standard error: the error that ended it."""
    return (said.decode("utf-8", "replace").strip().splitlines() or ["no reason given"])[-1]
