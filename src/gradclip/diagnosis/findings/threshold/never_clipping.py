"""A constant threshold that no norm ever reached, though norms spiked far above the usual.

Why it is bad:
    Clipping is there for the rare step that is far too long. A threshold above every spike lets them all through: the run
    is one without clipping, while its code says otherwise.

How it is detected:
    In at least 200 steps none was clipped. Three norms or more were ten times the usual, which is the largest median of 50
    steps up to then: a warning where the loss rose after them by more than it does after 95 of 100 steps, else a note, and
    nothing where the loss lost 90% of its size. Without spikes a threshold is a guard, and fine; it is worth a note only where
    it is a hundred times the largest norm or more (from a million on it is there to measure).

Wrong:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1000.0)  # norms near 1, spikes of 50

Right:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)

References:
    - Pascanu, Mikolov, Bengio 2013, section 3.2, https://arxiv.org/abs/1211.5063
    - Zhang et al. 2020, Why are adaptive methods good for attention models? https://arxiv.org/abs/1912.03194
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from gradclip.diagnosis.advice.threshold_fix import attach_fix
from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import number, plural
from gradclip.diagnosis.readings.run_data import Floats, OptimizerRun, RunData
from gradclip.diagnosis.signals.global_norm_clipping import GlobalNormClipping, global_norm_clipping_of
from gradclip.diagnosis.signals.loss_progress import has_learned

FEWEST_STEPS: Final = 200
"""A guard acts once in hundreds of steps; with fewer, never is too early to say."""
BLOCK: Final = 50
"""Steps whose median is what was usual there; a norm that rises slowly makes no spikes."""
SPIKE: Final = 10.0
"""Times the usual norm; the norms of batches of ordinary noise stay within 5."""
FEWEST_SPIKES: Final = 3
"""One or two are an accident."""
FAR: Final = 100.0
"""Times the largest norm: a guard that would let a step through that is a hundred times the worst so far."""
MEASURES: Final = 1e6
"""Times the largest norm: clip_grad_norm_ called for the norm it returns."""
AFTER: Final = 5
"""Losses before and after a step, whose medians are compared."""
RARE: Final = 95.0
"""Percentile of the rises of the loss at all steps."""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect a threshold that is above every spike."""
    clipping = global_norm_clipping_of(run, optimizer)
    if clipping is None or len(clipping.norms) < FEWEST_STEPS or (clipping.norms > clipping.threshold).any():
        return
    usual = _usual(clipping.norms)
    spikes = np.flatnonzero((clipping.norms > SPIKE * usual) & (usual > 0))
    hurt = _hurt(optimizer.steps.loss[clipping.rows], spikes)
    if len(spikes) >= FEWEST_SPIKES and (hurt or not has_learned(run, optimizer)):
        yield _let_through(optimizer, clipping, usual, spikes, hurt)
    elif not len(spikes) and FAR <= clipping.threshold / max(float(clipping.norms.max()), np.finfo(float).tiny) < MEASURES:
        yield _far_above(optimizer, clipping)


def _let_through(
    optimizer: OptimizerRun, clipping: GlobalNormClipping, usual: Floats, spikes: NDArray[np.intp], hurt: bool
) -> Symptom:
    times = clipping.norms[spikes] / usual[spikes]
    worst = int(spikes[times.argmax()])
    step = int(optimizer.steps.step[clipping.rows[worst]])
    return Symptom(
        "warning" if hurt else "note",
        f"{_never(clipping)}, though {plural(len(spikes), 'norm')} spiked up to {number(times.max())} times the usual"
        f"{', and the loss rose after them' if hurt else ''}.",
        (
            Evidence("gradient norm", clipping.norms[worst], clipping.threshold, step),
            Evidence("largest norm / the usual one", times.max(), SPIKE),
            Evidence("spikes", len(spikes), FEWEST_SPIKES),
        ),
        attach_fix(optimizer),
        "likely" if hurt else "possible",
        clipping.where,
    )


def _far_above(optimizer: OptimizerRun, clipping: GlobalNormClipping) -> Symptom:
    largest = float(clipping.norms.max())
    ratio = clipping.threshold / largest
    return Symptom(
        "note",
        f"{_never(clipping)}: it is {number(ratio)} times the largest norm.",
        (Evidence("threshold / largest norm", ratio, FAR), Evidence("largest gradient norm", largest)),
        attach_fix(optimizer),
        "possible",
        clipping.where,
    )


def _never(clipping: GlobalNormClipping) -> str:
    return f"The threshold {number(clipping.threshold)} never acted in {plural(len(clipping.norms), 'step')}"


def _usual(norms: Floats) -> Floats:
    """The largest median of a block so far: near the end norms are small, and a batch as large as the first ones no spike."""
    blocks = len(norms) // BLOCK
    middles = np.median(norms[: blocks * BLOCK].reshape(blocks, BLOCK), axis=1)
    return np.maximum.accumulate(middles)[np.minimum(np.arange(len(norms)) // BLOCK, blocks - 1)]


def _hurt(losses: Floats, spikes: NDArray[np.intp]) -> bool:
    """Whether the loss was higher after the spikes than before, by more than it is now and then anyway."""
    if len(losses) <= 2 * AFTER:
        return False
    middles = np.median(sliding_window_view(losses, AFTER), axis=1)
    rises = middles[AFTER + 1 :] - middles[: -AFTER - 1]  # the step itself is left out: its loss is of the weights before it
    at = spikes[(spikes >= AFTER) & (spikes < AFTER + len(rises))] - AFTER
    near = np.unique(at[:, None] + np.arange(-AFTER, AFTER + 1))  # what a spike does shows there, too
    elsewhere = np.delete(rises, near[(near >= 0) & (near < len(rises))])
    elsewhere = elsewhere[np.isfinite(elsewhere)]
    return len(at) > 0 and len(elsewhere) > 0 and bool(np.median(rises[at]) > max(np.percentile(elsewhere, RARE), 0.0))
