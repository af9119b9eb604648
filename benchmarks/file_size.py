"""How large a run file gets: ``python -m benchmarks.file_size``.

What `gradclip run` writes of a script under mixed precision, as random numbers: they differ from step to step in every digit,
so that a real run is hardly ever larger. Losses and norms before and after clipping at every step, weights and updates at every
tenth.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from gradclip.runs import Event, RunWriter, StepRow, TensorInfo

TENSORS, STEPS = 148, 100_000
UPDATE_EVERY = 10
USUAL = [Event(kind) for kind in ("zero_grad", "forward", "backward", "unscale", "clip", "step")]


def recorded_bytes(folder: Path, steps: int, tensors: int = TENSORS, *, each: bool) -> int:
    """Record a run, and return the size of its file.

    Args:
        folder: where the file goes.
        steps: how many steps are recorded.
        tensors: how many tensors there are.
        each: whether every tensor is clipped by a factor of its own, as by ``agc``; else all share one, as by ``global_norm``.
    """
    rng = np.random.default_rng(0)
    writer = RunWriter(folder / f"each-{each}-{steps}.gradclip")
    writer.add_tensors([TensorInfo(f"transformer.h.{number}.attn.weight", (768, 768)) for number in range(tensors)])
    writer.flush()
    for step in range(steps):
        loss, rate, norm, clipped, factor, threshold, weight, scale = rng.random(8)
        measured = StepRow(step, 0, None, loss, rate, norm, clipped, factor, threshold, True, False, 0, scale, weight)
        writer.add_step(measured)
        writer.add_tensor_row(step, 0, "norm", rng.random(tensors))
        writer.add_tensor_row(step, 0, "clipped_norm", rng.random(tensors) if each else factor)
        writer.add_events(step, 0, USUAL)
        if step % UPDATE_EVERY == 0:
            writer.add_tensor_row(step, 0, "weight_norm", rng.random(tensors))
            writer.add_tensor_row(step, 0, "update_norm", rng.random(tensors))
        if step % 1000 == 0:
            writer.flush(60.0)  # faster than any training: let the disk follow
    writer.close()
    if writer.failed:
        raise RuntimeError(writer.failed)
    return writer.path.stat().st_size


def main() -> None:
    """Record both, and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--tensors", type=int, default=TENSORS)
    options = parser.parse_args()
    for each in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            size = recorded_bytes(Path(folder), options.steps, options.tensors, each=each)
        clipping = "every tensor by a factor of its own" if each else "all tensors by one factor"
        print(f"{options.steps:,} steps x {options.tensors:,} tensors, clipped {clipping}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
