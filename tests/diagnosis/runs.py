"""Synthetic runs with known truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from gradclip.diagnosis.readings.run_data import RunData, read_run
from gradclip.runs import ABSENT, Event, Run, RunWriter, StepRow, TensorInfo

CLIP = Event("clip", 0, "clip_grad_norm_", 2.0)
ORDER = (Event("zero_grad", 0), Event("forward"), Event("backward"), CLIP, Event("step", 0))


def recorded(
    path: Path,
    rows: Sequence[Sequence[float]],
    *,
    names: Sequence[str] | None = None,
    optimizer: int = 0,
    writer: RunWriter | None = None,
    threshold: float | None = None,
    losses: Sequence[float] | None = None,
    skips: Sequence[int] = (),
    ratio: float | None = None,
    scale: float | None = None,
    status: str | None = "finished",
    **meta: object,
) -> Path:
    """Record one step for each row of tensor norms; a threshold clips it, ``ABSENT`` is a tensor without a gradient.

    A run goes on where its ``writer`` is given, and stays open where ``status`` is None.
    """
    writer = writer or RunWriter(path, {"title": "run", **meta})
    writer.add_tensors(
        [TensorInfo(name, (2,), optimizer=optimizer) for name in names or [f"w{i}" for i in range(len(rows[0]))]]
    )
    for step, row in enumerate(rows):
        norm = math.sqrt(sum(value * value for value in row if value != ABSENT))
        clipped = None if threshold is None else not norm <= threshold
        after = 0.0 if step in skips else norm if threshold is None or not clipped else threshold
        writer.add_step(
            StepRow(
                step=step, optimizer=optimizer, time=step * 0.5, loss=losses[step] if losses else 1.0 / (step + 1), lr=0.1,
                norm=norm, clipped_norm=after, threshold=threshold, clipped=clipped, skipped=step in skips,
                nonfinite=sum(not math.isfinite(value) for value in row), amp_scale=scale,
            )
        )  # fmt: skip
        writer.add_tensor_row(step, optimizer, "norm", row)
        if ratio is not None:
            writer.add_tensor_row(step, optimizer, "weight_norm", [2.0] * len(row))
            writer.add_tensor_row(step, optimizer, "update_norm", [2.0 * ratio] * len(row))
        happened = [event if event.optimizer is None else event._replace(optimizer=optimizer) for event in ORDER]
        writer.add_events(step, optimizer, happened if step else happened[1:])
    if status is None:
        writer.flush()
    else:
        writer.close(status)
    assert writer.failed is None
    return path


def read(path: Path, most: int = 60) -> RunData:
    """Gather a run from its file."""
    with Run.open(path) as run:
        return read_run(run, most)
