"""Run files of numbers chosen by the test: one column is what a fault looks like, the others are sound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gradclip.runs import ABSENT, RunWriter, StepRow, TensorInfo

NAMES = ("first.weight", "second.weight")


def falling(steps: int, start: float = 2.0, end: float = 1.0) -> np.ndarray:
    """A noisy loss on its way down."""
    return np.linspace(start, end, steps) + 0.05 * np.random.default_rng(1).standard_normal(steps)


def steady(steps: int, level: float = 1.0) -> np.ndarray:
    """Norms that vary as those of a sound run do, by a third or so."""
    return level * np.exp(0.3 * np.random.default_rng(2).standard_normal(steps))


def numbers(
    path: Path,
    norms: Sequence[float],
    losses: Sequence[float] | None = None,
    *,
    rates: Sequence[float | None] | None = None,
    clipped_norms: Sequence[float] | None = None,
    ratios: Sequence[Sequence[float]] | float | None = None,
    skipped: Sequence[int] = (),
    scale: float | None = None,
    names: Sequence[str] = NAMES,
    rows: dict[int, Sequence[float]] | None = None,
    optimizers: int = 1,
    every: int = 1,
) -> Path:
    """Record one step for each norm, of which the first tensor makes nearly all; what is None is not measured."""
    writer = RunWriter(path, {"title": "train.py", "command": ["python", "train.py", "--epochs", "3"]})
    for optimizer in range(optimizers):
        writer.add_tensors([TensorInfo(name, (4, 4), optimizer=optimizer) for name in names])
        for step, norm in enumerate(norms):
            row = (rows or {}).get(step, [norm] + [0.1 * norm] * (len(names) - 1))
            writer.add_step(
                StepRow(
                    step=step, optimizer=optimizer, time=float(step), norm=norm,
                    loss=None if losses is None else losses[step],
                    lr=0.1 if rates is None else rates[step],
                    clipped_norm=None if clipped_norms is None else clipped_norms[step],
                    clipped=None if clipped_norms is None else clipped_norms[step] < norm,
                    skipped=step in skipped, amp_scale=scale, weight_norm=10.0,
                    nonfinite=sum(not math.isfinite(one) for one in row if one != ABSENT),
                )
            )  # fmt: skip
            if step % every == 0:
                writer.add_tensor_row(step, optimizer, "norm", row)
            if ratios is not None and step % 10 == 0:
                ratio = [ratios] * len(names) if isinstance(ratios, float) else ratios[step // 10]
                writer.add_tensor_row(step, optimizer, "weight_norm", [10.0] * len(names))
                writer.add_tensor_row(step, optimizer, "update_norm", [10.0 * one for one in ratio])
    writer.close()
    assert writer.failed is None
    return path
