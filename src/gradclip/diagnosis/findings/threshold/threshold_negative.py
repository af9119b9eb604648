"""Gradients are clipped to a negative threshold, which turns them round.

Why it is bad:
    A clipping multiplies by the threshold over the norm: by a negative number. Each step then climbs the loss instead of going
    down, at the length of the threshold, and no error is raised. (Clipping by value sets every element to the threshold, so the
    step does not depend on the data at all.) Some configurations mean "no clipping" by -1; PyTorch does not.

How it is detected:
    The threshold in force was below 0 at a step that had a gradient.

Wrong:
    torch.nn.utils.clip_grad_norm_(model.parameters(), -1.0)

Right:
    if max_norm > 0:
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)

References:
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_value_.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import number, percent
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.unusable_thresholds import unusable_threshold_of

EXPLAINS: Final = ("exploding-gradient", "loss-spike", "non-finite-gradient", "update-too-large", "dead-layer")

FIX: Final = """\
if {0} > 0:  # where a negative number means that nothing is to be clipped
    torch.nn.utils.{1}(model.parameters(), {0})"""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect a threshold below 0."""
    found = unusable_threshold_of(run, optimizer, lambda thresholds: thresholds < 0)
    if found is None:
        return
    limit = number(found.threshold.value)
    by_value = "value" in found.function
    turned = f"every element becomes {limit}" if by_value else "every gradient is turned round, and each step climbs the loss"
    yield Symptom(
        "error",
        f"The threshold of {found.function} is negative ({limit}) at {percent(found.share.value)} of steps: {turned}.",
        (found.threshold, found.share),
        FIX.format(*(("clip_value", "clip_grad_value_") if by_value else ("max_norm", "clip_grad_norm_"))),
        "certain",
        found.where,
    )
