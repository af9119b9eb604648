"""The threshold lies in the middle of the ordinary norms, so it is chance which step is clipped, and much is cut.

Why it is bad:
    A minibatch's gradient is the mean gradient and noise. A threshold among the ordinary norms cuts the batches that happen
    to be large and leaves those that happen to be small: the mean of what is applied is no longer the mean gradient, and
    rare classes or long sequences, which make large gradients, count for less. The run converges to another point, or
    slower.

How it is detected:
    In each quarter of the second half of at least 200 steps, between 20% and 80% were clipped, and without the spikes (above
    five times the median) the clipping took a fifth of the sum of all norms or more. Norms that lie close together lose less
    than that, wherever the threshold is. It is a warning where the loss lost less than 5% of its size, nothing where it lost
    90% (little is left to bend), else a note.

Wrong:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # norms from 0.2 to 5, around 1

Right:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 8.0)

References:
    - Koloskova et al. 2023, Revisiting gradient clipping: stochastic bias and tight convergence guarantees, https://arxiv.org/abs/2305.01588
    - Chen, Wu, Hong 2020, Understanding gradient clipping in private SGD, https://arxiv.org/abs/2006.15429
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from gradclip.diagnosis.advice.recipe_suggestion import SPIKE
from gradclip.diagnosis.advice.threshold_candidates import last_half, would_clip
from gradclip.diagnosis.advice.threshold_fix import attach_fix
from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import number, percent
from gradclip.diagnosis.readings.run_data import Floats, OptimizerRun, RunData
from gradclip.diagnosis.signals.global_norm_clipping import global_norm_clipping_of
from gradclip.diagnosis.signals.loss_progress import has_learned, stalls

FEWEST_STEPS: Final = 200
"""So that a quarter of the second half has 25."""
QUARTERS: Final = 4
"""Norms that drift past the threshold are clipped always at first and never later; that is no chance."""
LEAST: Final = 0.2
MOST: Final = 0.8
"""Of the steps in each quarter: outside of them the threshold is a guard, or all but always there."""
CUT: Final = 0.2
"""Of the sum of the norms: what a threshold at the median takes from lognormal norms that spread by half a power of e."""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect a threshold that acts by chance, and on much of the gradient."""
    clipping = global_norm_clipping_of(run, optimizer)
    if clipping is None or len(clipping.norms) < FEWEST_STEPS:
        return
    late = last_half(clipping.norms)
    shares = [would_clip(part, clipping.threshold) for part in np.array_split(late, QUARTERS)]
    cut = _cut(late, clipping.threshold)
    if min(shares) < LEAST or max(shares) > MOST or cut < CUT or has_learned(run, optimizer):
        return
    share = would_clip(late, clipping.threshold)
    yield Symptom(
        "warning" if stalls(run, optimizer) else "note",
        f"The threshold {number(clipping.threshold)} is among the ordinary norms: it clips {percent(share)} of steps, as "
        f"chance has it, and takes {percent(cut)} of the gradient.",
        (
            Evidence("share of steps clipped", share, LEAST if share < 0.5 else MOST),
            Evidence("share of the sum of ordinary norms that clipping took", cut, CUT),
            Evidence("median gradient norm", float(np.median(late)), clipping.threshold),
        ),
        f"# a threshold above the ordinary norms:\n{attach_fix(optimizer)}",
        "possible",
        clipping.where,
    )


def _cut(norms: Floats, threshold: float) -> float:
    """The share of the ordinary norms' sum that lies above the threshold."""
    ordinary = norms[norms <= SPIKE * np.median(norms)]
    whole = float(ordinary.sum())
    return 1.0 - float(np.minimum(ordinary, threshold).sum()) / whole if whole > 0 else 0.0
