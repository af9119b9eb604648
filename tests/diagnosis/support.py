"""What the checks say of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from gradclip.diagnosis.finding import Finding
from gradclip.diagnosis.ranking import check
from gradclip.diagnosis.readings.run_data import read_run
from gradclip.diagnosis.registry import CHECKS
from gradclip.runs import Run
from gradclip.watch.api import record


def findings(path: Path, family: str | None = None) -> list[Finding]:
    """Check a run file, by one family of checks or by all."""
    chosen = [one for one in CHECKS.values() if family in (None, one.family)]
    with Run.open(path) as run:
        return check(read_run(run), chosen)


def found(path: Path, family: str | None = None) -> list[str]:
    """Name what is found in a run file."""
    return [finding.name for finding in findings(path, family)]


def recorded_training(folder: Path, train: Callable[[], object], *watched: torch.optim.Optimizer) -> Path:
    """Record a training, and return its file."""
    torch.manual_seed(0)
    with record(None, list(watched) or None, out=folder) as recording:
        train()
    return recording.path
