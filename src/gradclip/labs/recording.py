"""A lab's arm as a run file, the same as a watched run leaves: written step by step, and read back for the page."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np

from gradclip.labs.lab import Arm, Curves
from gradclip.result import ClipResult
from gradclip.runs import Run, RunWriter, StepRow, TensorInfo

__all__ = ["Recording", "read", "run_path"]

MOST_ROWS = 500
"""Of the norms of single tensors; the steps themselves are all kept."""
LONGEST = 100
"""Letters of an arm in a file's name, which file systems limit."""


def run_path(folder: Path, lab: str, place: int, arm: Arm) -> Path:
    """Where the run of a lab's arm is kept: the same name each time, so that the lab's next run takes its place.

    >>> run_path(Path("runs"), "lstm", 1, Arm("LSTM", 0.1, "global_norm:20.0")).as_posix()
    'runs/lab-lstm-2-LSTM-at-lr-0.1-global_norm-20.0.gradclip'
    """
    words = "".join(letter if letter.isalnum() or letter in "._=" else " " for letter in arm.name).split()
    return folder / f"lab-{lab}-{place + 1}-{'-'.join(words)[:LONGEST]}.gradclip"


class Recording:
    """Writes each step of an arm; where the file cannot be written, the lab goes on without it."""

    def __init__(self, path: Path, lab: str, arm: Arm, steps: int, seed: int) -> None:
        for old in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
            with suppress(OSError):  # the writer will say what is wrong with the folder
                old.unlink()
        self._path, self._arm = path, arm
        self._every = max(1, math.ceil(steps / MOST_ROWS))
        self._named = False
        clip = arm.clip if arm.clips else None
        meta = {"title": arm.name, "clip": clip, "framework": f"torch {version('torch')}", "every": self._every}
        self._writer = RunWriter(
            path, {**meta, "lab": {"name": lab, "seed": seed, "arm": asdict(arm)}}, on_failure=lambda _: None
        )

    def add(self, curves: Curves, result: ClipResult) -> None:
        """Add the last step of the curves; its norms are those of the clip result, in the method's own norm."""
        if not self._named:
            self._named = True
            self._writer.add_tensors([TensorInfo(name, ()) for name in result.names])
        step, clips = len(curves.losses) - 1, self._arm.clips
        row = StepRow(
            step, loss=curves.losses[-1], lr=curves.also.get("rate", [self._arm.lr])[-1],
            norm=curves.norms[-1], clipped_norm=curves.clipped_norms[-1], coefficient=float(result.coefficient),
            threshold=curves.limits[-1] if clips else None, clipped=curves.clipped[-1] if clips else None,
            skipped=result.skipped, nonfinite=len(result.nonfinite_names),
        )  # fmt: skip
        self._writer.add_step(row)
        if step % self._every == 0:
            self._writer.add_tensor_row(step, 0, "norm", result.tensor_norms.tolist())
            if clips:
                self._writer.add_tensor_row(step, 0, "clipped_norm", result.clipped_tensor_norms.tolist())

    def close(self, curves: Curves, status: str = "finished") -> None:
        """Add what has no column of its own, and how the arm ended, and close the file."""
        self._writer.update_meta(also=curves.also, note=curves.note)
        self._writer.close(status)

    def read(self, curves: Curves) -> Curves:
        """Return what is in the file, or the curves themselves where it could not be written."""
        return curves if self._writer.failed else read(self._path)


def read(path: Path) -> Curves:
    """Read the curves of an arm from its run file.

    Raises:
        RunFileError: it is not a run.
        KeyError: it is not a run of a lab.
    """
    with Run.open(path) as run:
        meta, steps = run.meta, run.steps()
    limits = np.where(steps.missing["threshold"], math.inf, steps.threshold).tolist()
    return Curves(
        Arm(**meta["lab"]["arm"]), steps.loss.tolist(), steps.norm.tolist(), steps.clipped_norm.tolist(), limits,
        steps.clipped.tolist(), meta["also"], meta["note"], path=path,
    )  # fmt: skip
