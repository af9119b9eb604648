"""A long run of a large model fits into a file that one can send."""

from __future__ import annotations

import numpy as np

from gradclip.runs import Event, RunWriter, StepRow, TensorInfo

TENSORS, STEPS = 148, 4000


def test_a_hundred_thousand_steps_of_148_tensors_stay_under_100_mb(tmp_path):
    """Norms before and after clipping every step, weights and updates every hundredth; every step's numbers differ."""
    rng = np.random.default_rng(0)
    writer = RunWriter(tmp_path / "run.gradclip")
    writer.add_tensors([TensorInfo(f"transformer.h.{number}.attn.weight", (768, 768)) for number in range(TENSORS)])
    usual = [Event(kind) for kind in ("zero_grad", "forward", "backward", "unscale", "clip", "step")]
    for step in range(STEPS):
        loss, rate, norm, clipped, factor, threshold, weight, scale = rng.random(8)
        measured = StepRow(step, 0, None, loss, rate, norm, clipped, factor, threshold, True, False, 0, scale, weight)
        writer.add_step(measured)
        writer.add_tensor_row(step, 0, "norm", rng.random(TENSORS))
        writer.add_tensor_row(step, 0, "clipped_norm", factor)
        writer.add_events(step, 0, usual)
        if step % 100 == 0:
            writer.add_tensor_row(step, 0, "weight_norm", rng.random(TENSORS))
            writer.add_tensor_row(step, 0, "update_norm", rng.random(TENSORS))
    empty = writer.path.stat().st_size
    writer.close()
    per_step = (writer.path.stat().st_size - empty) / STEPS
    assert per_step > 4 * TENSORS  # nothing was left out
    assert per_step * 100_000 < 100e6
