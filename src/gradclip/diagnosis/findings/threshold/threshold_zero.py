"""Gradients are clipped to a threshold of 0, so every one of them becomes zero.

Why it is bad:
    A clipping multiplies by the threshold over the norm: by 0. What moves the weights then is weight decay and old momentum,
    nothing is learned, and no error is raised. Many configurations mean "no clipping" by 0; PyTorch does not.

How it is detected:
    The threshold in force was 0 at steps whose gradients were not. It is an error where that is so at half of the clipped
    steps or more, a warning where it is so now and then, as at the end of a schedule; a single step is left alone.

Wrong:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.0)

Right:
    if max_norm > 0:
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)

References:
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html
    - https://lightning.ai/docs/pytorch/stable/common/trainer.html#gradient-clip-val
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gradclip.diagnosis.advice.threshold_fix import attach_fix
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import percent
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.step_share import HALF
from gradclip.diagnosis.signals.unusable_thresholds import unusable_threshold_of

EXPLAINS: Final = ("update-too-small", "never-clipping", "always-clipping", "threshold-in-the-noise")
FEWEST_STEPS: Final = 2


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect a threshold of 0."""
    found = unusable_threshold_of(run, optimizer, lambda thresholds: thresholds == 0)
    if found is None or found.count < FEWEST_STEPS:
        return
    often = found.share.value >= HALF
    yield Symptom(
        "error" if often else "warning",
        f"The threshold of {found.function} is 0 at {percent(found.share.value)} of steps: every gradient becomes zero there, "
        f"and nothing is learned.",
        (found.threshold, found.share),
        _fix(optimizer, found.function),
        "certain",
        found.where,
    )


def _fix(optimizer: OptimizerRun, function: str) -> str:
    name, limit = ("clip_grad_value_", "clip_value") if "value" in function else ("clip_grad_norm_", "max_norm")
    return f"""\
if {limit} > 0:  # where 0 means that nothing is to be clipped
    torch.nn.utils.{name}(model.parameters(), {limit})
# or with a threshold that these norms ask for, once before the loop:
{attach_fix(optimizer)}"""
