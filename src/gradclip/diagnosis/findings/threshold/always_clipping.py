"""Nearly every step is clipped to a small part of its gradient, so the threshold sets the length of every step.

Why it is bad:
    When every gradient is cut to the same norm, how large it was says nothing any more: this is normalised gradient
    descent, with a learning rate that is smaller than the one in the code. Under SGD the steps stay as long near a minimum
    as far from it, and a threshold far too low leaves steps too short to get anywhere; under Adam and its kin a constant
    factor cancels, as long as gradients stay above eps, and only the differences between steps are lost. It may work well;
    then it is better said in the code.

How it is detected:
    At least 95% of at least 100 steps were clipped, and of the second half as well, and the middle one kept a tenth of its
    norm or less. Only a constant threshold for the norm of all gradients counts: recipes that normalize, or that learn
    their threshold, clip by design. It is a warning where the loss lost less than 5% of its size, else a note.

Wrong:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)  # norms near 5

Right:
    gradclip.attach(optimizer, "normalize:0.01")  # the same steps, said openly
    torch.nn.utils.clip_grad_norm_(model.parameters(), 20.0)  # or a guard above the ordinary norms

References:
    - Zhang et al. 2020, Why gradient clipping accelerates training, https://arxiv.org/abs/1905.11881
    - Koloskova et al. 2023, Revisiting gradient clipping, https://arxiv.org/abs/2305.01588
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from gradclip.diagnosis.advice.threshold_candidates import last_half, would_clip
from gradclip.diagnosis.advice.threshold_fix import attach_fix
from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import number, percent
from gradclip.diagnosis.readings.optimizer_settings import is_adaptive
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.global_norm_clipping import GlobalNormClipping, global_norm_clipping_of
from gradclip.diagnosis.signals.loss_progress import STALLED, progress

FEWEST_STEPS: Final = 100
"""The first steps of a training have large norms; with fewer it may be these alone."""
ALWAYS: Final = 0.95
"""Of the steps; AutoClip's tenth percentile, which clips by design, is at 90%."""
KEPT: Final = 0.1
"""Of the norm at the middle step: a power of ten. Clipping at 1 while norms are near 3 is how many good recipes run."""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect a threshold that is far below nearly all norms."""
    clipping = global_norm_clipping_of(run, optimizer)
    if clipping is None or len(clipping.norms) < FEWEST_STEPS:
        return
    share = min(would_clip(part, clipping.threshold) for part in (clipping.norms, last_half(clipping.norms)))
    if share < ALWAYS:
        return
    kept = max(clipping.threshold / float(np.median(part)) for part in (clipping.norms, last_half(clipping.norms)))
    if kept > KEPT:
        return
    learned = progress(run, optimizer)
    stalled = learned is not None and learned < STALLED
    yield Symptom(
        "warning" if stalled else "note",
        f"{percent(share)} of steps are clipped to {number(clipping.threshold)}, and the middle one keeps {percent(kept)} of "
        f"its norm{', while the loss hardly falls' if stalled else ''}.",
        (
            Evidence("share of steps clipped", share, ALWAYS),
            Evidence("share of its norm that the middle step keeps", kept, KEPT),
            *([] if learned is None else [Evidence("share of its first size that the loss lost", learned)]),
        ),
        _fix(run, optimizer, clipping, kept),
        "possible" if stalled else "likely",
        clipping.where,
    )


def _fix(run: RunData, optimizer: OptimizerRun, clipping: GlobalNormClipping, kept: float) -> str:
    return f"""\
# Say what it does: every step has the same norm.
gradclip.attach(optimizer, "normalize:{clipping.threshold:g}")
# Or clip large norms alone:
{attach_fix(optimizer)}
{_rate(is_adaptive(run, optimizer), kept)}"""


def _rate(adaptive: bool | None, kept: float) -> str:
    """What the learning rate should be with longer gradients."""
    if adaptive:
        return (
            "# (leave the learning rate: this optimizer divides by the size of its gradients, while they are above its eps)\n"
        )
    why = "so the steps stay as long as they were" if adaptive is not None else "under SGD; Adam and its kin keep their rate"
    return f'for group in optimizer.param_groups:\n    group["lr"] *= {kept:.2g}  # {why}\n'
