"""Each step moves the weights by a large part of themselves, and the loss does not fall.

Why it is bad:
    Gradients say where the loss falls nearby. A step that replaces a tenth of the weights, or all of them, lands where they say
    nothing: the loss jumps about or rises, units die, and what is learned at one step is gone at the next.

How it is detected:
    From the norm of the update over the norm of the weights, in the median over the layers (no biases, no normalisation,
    nothing that is frozen or still zero), which usually is near 0.001. It is above 0.1 in at least half of the samples and in
    5 of them, or above 1 at some sample; and the loss of the run's last third is not below its first value. A run that
    exploded is told as that.

Wrong:
    optimizer = torch.optim.Adam(model.parameters(), lr=1.0)

Right:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

References:
    - Wardat, Cruz, Le, Rajan 2022, DeepDiagnosis, https://arxiv.org/abs/2112.04036
    - Karpathy, makemore part 3, https://github.com/karpathy/nn-zero-to-hero
    - https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from gradclip.diagnosis.advice.learning_rate_fix import rate_fix
from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import number
from gradclip.diagnosis.readings.event_order import call_site_of
from gradclip.diagnosis.readings.losses import losses_of
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.explosions import explosion_of
from gradclip.diagnosis.signals.loss_progress import loss_fell
from gradclip.diagnosis.signals.update_ratios import Ratios, typical_ratios

LARGE: Final = 0.1
"""DeepDiagnosis's upper limit."""
ALL: Final = 1.0
"""The weights are replaced in one step: once is enough."""
HALF: Final = 0.5
"""Of the samples."""
SAMPLES: Final = 5
"""Fewer large samples may be the start, where small weights have large ratios."""
STEPS: Final = 50
"""Losses below which a loss that has not fallen yet says nothing."""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect updates as large as the weights that do not help."""
    ratios, losses = typical_ratios(optimizer), losses_of(optimizer).values
    if len(losses) < STEPS or loss_fell(losses):
        return
    found = _at_once(ratios) or _persistent(ratios)
    if found is None or explosion_of(optimizer) is not None:
        return
    sentence = (
        f"Steps move a typical layer by {number(found.value)} times its weights, where about 0.001 is usual, "
        f"and the loss does not fall."
    )
    begun, ended = float(losses[0]), float(np.median(losses[-(len(losses) // 3) :]))
    evidence = (found, Evidence("median loss of the last third", ended, begun))
    place = call_site_of(run, optimizer, "step")
    yield Symptom("warning", sentence, evidence, rate_fix(optimizer, found.value), "likely", place)


def _at_once(ratios: Ratios) -> Evidence | None:
    over = np.flatnonzero(ratios.values > ALL)
    if not len(over):
        return None
    return Evidence("update norm / weight norm, median over layers", ratios.values[over[0]], ALL, int(ratios.steps[over[0]]))


def _persistent(ratios: Ratios) -> Evidence | None:
    over = ratios.values > LARGE
    if over.sum() < max(SAMPLES, HALF * len(over)):
        return None
    middle = float(np.median(ratios.values[over]))
    return Evidence("update norm / weight norm, median over layers", middle, LARGE, int(ratios.steps[over][0]))
