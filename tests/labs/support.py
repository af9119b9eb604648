"""Short runs of a lab."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from gradclip.labs.lab import UNCLIPPED, Arm
from gradclip.labs.runner import run_arms

__all__ = ["UNCLIPPED", "Arm", "runs"]


def runs(lab, arms=None, steps=4, seed=0, jobs=1, out=None):
    """Run some arms; without a folder their files are gone afterwards."""
    with TemporaryDirectory() as folder:
        return run_arms(
            lab, arms or lab.arms_with(), steps=steps, seed=seed, jobs=jobs, report=lambda tick: None, out=out or Path(folder)
        )
