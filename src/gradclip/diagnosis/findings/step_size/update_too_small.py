"""Each step moves the weights by next to nothing, and the loss stalls.

Why it is bad:
    At a hundred-thousandth of the weights a step, ten thousand steps move them by a tenth: the run costs time and learns
    nothing. In half precision such updates are lost altogether, because the sum rounds back to the old weight.

How it is detected:
    From the norm of the update over the norm of the weights, in the median over the layers, which usually is near 0.001. It is
    below 0.00001 in at least nine of ten samples and in 20 of them, the loss of the last third is within noise of that of the
    first, and the gradient has not become smaller: a run that has converged is left alone. So is a warm-up, and the tail of a
    schedule, and what is left of a run that exploded.

Wrong:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)

Right:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

References:
    - Wardat, Cruz, Le, Rajan 2022, DeepDiagnosis, https://arxiv.org/abs/2112.04036
    - Karpathy, makemore part 3, https://github.com/karpathy/nn-zero-to-hero
    - https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html
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
from gradclip.diagnosis.readings.rolling_statistics import median_and_spread
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.explosions import explosion_of
from gradclip.diagnosis.signals.loss_progress import loss_fell
from gradclip.diagnosis.signals.update_ratios import typical_ratios

SMALL: Final = 1e-5
"""DeepDiagnosis's lower limit; SageMaker Debugger's is 1e-8."""
NEARLY_ALL: Final = 0.9
"""Of the samples: the tail of a cosine schedule has small ones, too."""
SAMPLES: Final = 20
"""That is 200 steps at least: a loss that falls slowly shows it by then."""
SHRUNK: Final = 0.5
"""Of the first third's gradient norm: below it the run is converging."""
TINY: Final = 1e-6
"""A gradient norm below which it is the gradient that is missing, not the step."""
WARMING: Final = 2.0
"""Times the median learning rate that the last one is: the run was recorded while it warmed up."""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect updates that are too small to learn by."""
    ratios, losses = typical_ratios(optimizer), losses_of(optimizer).values
    small = ratios.values < SMALL
    if len(small) < SAMPLES or small.mean() < NEARLY_ALL or _warming(optimizer):
        return
    if not _stalls(losses) or not _pulls(optimizer) or explosion_of(optimizer) is not None:
        return
    middle = float(np.median(ratios.values))
    sentence = (
        f"A step moves a typical layer by {number(middle)} of its weights, where about 0.001 is usual, and the loss stalls "
        f"at {number(float(np.median(losses)))}."
    )
    norm = float(np.median(optimizer.norms[np.isfinite(optimizer.norms)]))
    evidence = (
        Evidence("update norm / weight norm, median over layers and samples", middle, SMALL),
        Evidence("median gradient norm", norm, TINY),
    )
    yield Symptom("warning", sentence, evidence, rate_fix(optimizer, middle), "possible", call_site_of(run, optimizer, "step"))


def _warming(optimizer: OptimizerRun) -> bool:
    rates = optimizer.rates
    return bool(len(rates) and (rates[-1] > WARMING * np.median(rates, axis=0)).any())


def _stalls(losses: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> bool:
    """Whether the last third of the losses is within noise of the first, and next to nothing was gained."""
    if len(losses) < 3 * SAMPLES or not np.isfinite(losses).all() or loss_fell(losses):
        return False
    first, _, last = np.array_split(losses, 3)
    middle, spread = median_and_spread(first)
    return float(np.median(last)) > middle - max(spread, 1e-6 * abs(middle))


def _pulls(optimizer: OptimizerRun) -> bool:
    """Whether the gradient is there, and as large as it was."""
    norms = optimizer.norms[np.isfinite(optimizer.norms)]
    first, last = (float(np.median(part)) if len(part) else 0.0 for part in np.array_split(norms, 3)[::2])
    return last > TINY and last > SHRUNK * first
