"""Run a program plainly and under `gradclip run`, and read what was recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradclip.runs import Run

PROGRAMS = Path(__file__).parent / "programs"
OURS = "gradclip: "


@dataclass
class Outcome:
    """What came of one run of a program."""

    stdout: str
    stderr: str
    code: int
    truth: dict[str, Any] = field(default_factory=dict)
    runs: list[Path] = field(default_factory=list)

    @property
    def said(self) -> list[str]:
        """Our own lines on standard error."""
        return [line.removeprefix(OURS) for line in self.stderr.splitlines() if line.startswith(OURS)]

    @property
    def others(self) -> list[str]:
        """What the script, and Python, wrote to standard error."""
        return [line for line in self.stderr.splitlines() if not line.startswith(OURS)]

    def open(self) -> Run:
        """Open the one run that was recorded, but for those of processes that the script has started."""
        (path,) = self.runs if len(self.runs) == 1 else filter(_was_started_by_gradclip, self.runs)
        return Run.open(path)


def _was_started_by_gradclip(path: Path) -> bool:
    with Run.open(path) as run:
        return bool(run.meta["watched"])


def python(*words: object, cwd: Path, **variables: str) -> Outcome:
    """Run an interpreter to its end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRUTH": str(cwd / "truth.json"), **variables}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)
    truth = cwd / "truth.json"
    known = json.loads(truth.read_text()) if truth.exists() else {}
    truth.unlink(missing_ok=True)
    return Outcome(done.stdout, done.stderr, done.returncode, known, sorted((cwd / "runs").glob("*.gradclip")))


def plain(words: list[str], cwd: Path, **variables: str) -> Outcome:
    """Run a script as Python does."""
    return python(*words, cwd=cwd, **variables)


def watched(words: list[str], cwd: Path, *options: str, **variables: str) -> Outcome:
    """Run a script as `gradclip run` does."""
    return python("-m", "gradclip", "run", "--no-report", *options, *words, cwd=cwd, **variables)


def program(name: str, *arguments: str) -> list[str]:
    """Return the words that start one of the programs."""
    return [str(PROGRAMS / f"{name}.py"), *arguments]
