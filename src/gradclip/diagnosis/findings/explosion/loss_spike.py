"""The loss jumps far above its recent past for several steps.

Why it is bad:
    A spike costs the steps until the loss is back, and sometimes it never is. In large runs it follows a step with an unusual
    gradient: a bad batch, or second moments of Adam that are too small for the gradient that comes.

How it is detected:
    At least 3 losses in a row (more where single ones are so common that three are chance) are more than 6 standard deviations
    (by the median absolute deviation) above the median of the 128 before them, and have lost at least a tenth of what the loss
    had gained since the start. A loss that has gained nothing is left alone: in reinforcement learning and adversarial training
    it is no measure of progress. So is one that follows a learning rate that was raised, and one that an explosion took along,
    which is told as such. Where the gradient norm left its own past up to 3 steps before the spike, a step made it; where it
    did so at the spike itself or not at all, it is the data, or a step too small to be seen.

Wrong:
    loss.backward()
    optimizer.step()

Right:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
    optimizer.step()

References:
    - Chowdhery et al. 2022, PaLM, section 5.1, https://arxiv.org/abs/2204.02311
    - Molybog et al. 2023, A theory on Adam instability in large-scale machine learning, https://arxiv.org/abs/2304.09871
    - OLMo-core's SkipStepOptimizer, https://github.com/allenai/OLMo-core
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gradclip.diagnosis.advice.threshold_fix import clip_fix
from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import number
from gradclip.diagnosis.readings.losses import Losses, losses_of
from gradclip.diagnosis.readings.rolling_statistics import RollingStatistics, rolling_statistics
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.explosions import explosion_of
from gradclip.diagnosis.signals.largest_layer import largest_layer
from gradclip.diagnosis.signals.learning_rate_jumps import raised_near
from gradclip.diagnosis.signals.loss_harm import LOST, SOON

LEAST: Final = 32
"""Losses before a step that say what was usual."""
SIGMAS: Final = 6.0
"""OLMo-core's limit."""
IN_A_ROW: Final = 3
"""One or two are a bad batch, which every noisy run has."""
CHANCE: Final = 0.05
"""Of seeing so many in a row in the whole run, if each loss stood out by itself, as with gross outliers in the data."""
BACK: Final = 3.0
"""Standard deviations within which a loss counts as back."""
NEAR: Final = 3
"""Steps from the gradient that makes a spike to the spike."""
JUMP: Final = 3.0
"""Times its median, and as many standard deviations: a norm that left its past."""
BAD_BATCH: Final = """\
# no unusual gradient came before it: look at the batches of these steps, and at what has changed in the data
print(step, loss.item(), inputs.abs().max(), targets.unique())"""


@dataclass(frozen=True)
class Spike:
    """Where a loss jumped, from where, and when it was back."""

    step: int
    loss: float
    usual: float
    limit: float
    back: int | None


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect the first loss that jumped for several steps; what an explosion broke is told as one."""
    found = _spike(optimizer, losses_of(optimizer))
    if found is None or explosion_of(optimizer) is not None:
        return
    norm = _norm_around(optimizer, found.step)
    made = bool(norm) and norm[0].step is not None and norm[0].step < found.step
    back = f"was back at step {found.back:,}" if found.back is not None else "did not come back soon"
    sentence = f"The loss jumped from about {number(found.usual)} to {number(found.loss)} at step {found.step:,} and {back}."
    evidence = (Evidence("loss", found.loss, found.limit, found.step), *norm)
    if made:
        yield Symptom("warning", sentence, evidence, clip_fix(run, optimizer, found.step - NEAR), "likely")
    else:
        yield Symptom("note", sentence, evidence, BAD_BATCH, "possible")


def _spike(optimizer: OptimizerRun, losses: Losses) -> Spike | None:
    finite = np.isfinite(losses.values)
    steps, values = losses.steps[finite], losses.values[finite]
    if len(values) < LEAST + IN_A_ROW:
        return None
    usual = rolling_statistics(values, LEAST)
    limits = usual.median + np.maximum(SIGMAS * usual.spread, LOST * (losses.start - usual.median))
    out = (values > limits) & (losses.start - usual.median > SIGMAS * usual.spread)
    row = _more_than_chance(out)
    starts = np.flatnonzero(np.convolve(out, np.ones(row), "valid") == row) if row <= len(out) else np.zeros(0, np.intp)
    for i in starts.tolist():
        if not raised_near(optimizer, int(steps[i])):
            highest = float(values[i : i + SOON].max())
            return Spike(
                int(steps[i]), highest, float(usual.median[i]), float(limits[i]), _back(losses, usual, i, int(steps[i]))
            )
    return None


def _more_than_chance(out: NDArray[np.bool_]) -> int:
    """Return how many in a row are no chance at the rate at which losses stand out in this run."""
    rate = float(out.mean())
    if rate in (0.0, 1.0):
        return IN_A_ROW
    return max(IN_A_ROW, math.ceil(math.log(CHANCE / len(out)) / math.log(rate)))


def _back(losses: Losses, usual: RollingStatistics, i: int, step: int) -> int | None:
    """The first step at which the loss is where it was, looked at for a while."""
    level = usual.median[i] + max(BACK * usual.spread[i], LOST / 2 * (losses.start - usual.median[i]))
    later = (losses.steps > step) & (losses.values <= level)
    return int(losses.steps[later][0]) if later.any() and losses.steps[later][0] <= step + 2 * SOON else None


def _norm_around(optimizer: OptimizerRun, step: int) -> tuple[Evidence, ...]:
    """The first norm that left its past right before the spike or at it, and its largest layer."""
    steps = optimizer.steps
    finite = ~steps.missing["norm"] & np.isfinite(steps.norm) & (steps.norm > 0)
    logs, at = np.log(steps.norm[finite]), steps.step[finite]
    if not len(logs):
        return ()
    middle, spread = rolling_statistics(logs, LEAST)
    out = logs - middle > np.maximum(math.log(JUMP), JUMP * spread)
    out &= (at >= step - NEAR) & (at <= step)
    if not out.any():
        return ()
    i = int(np.flatnonzero(out)[0])
    limit = math.exp(middle[i] + max(math.log(JUMP), JUMP * spread[i]))
    return Evidence("gradient norm", math.exp(logs[i]), limit, int(at[i])), *largest_layer(optimizer, int(at[i]))
