"""The learning rate jumps up from one step to the next, and the loss pays for it.

Why it is bad:
    Weights that were reached with small steps lie in a narrow valley; a step many times as long leaves it, and with momentum
    or Adam the next ones go on in the same direction. Usual causes: a scheduler that is stepped twice, or by batches where it
    counts epochs; a rate set by hand after the optimizer was loaded; a schedule that does not know where a resumed run is.

How it is detected:
    The rate of a parameter group is at least 5 times that of the step before and above twice its highest until then, so that a
    warm restart, which goes back to a rate the run has had, is left alone; and within the next steps the loss is clearly worse
    than before and not back within 50 steps, or no finite number. A warm-up that ends in a jump the loss does not mind is left
    alone, too.

Wrong:
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step < 300 else 100.0)

Right:
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total_steps)

References:
    - Goyal et al. 2017, Accurate, large minibatch SGD (gradual warm-up), https://arxiv.org/abs/1706.02677
    - Loshchilov, Hutter 2017, SGDR: warm restarts, https://arxiv.org/abs/1608.03983
    - https://docs.pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Symptom
from gradclip.diagnosis.formatting import number
from gradclip.diagnosis.readings.event_order import call_site_of
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.learning_rate_jumps import ABOVE, LEAST, Jump, harmful_jump

START: Final = 0.01
"""The least factor a warm-up is told to begin with: one from next to 0 spends its first steps on nothing."""


def detect(run: RunData, optimizer: OptimizerRun) -> Iterator[Symptom]:
    """Detect the first jump of a learning rate that did harm."""
    jump = harmful_jump(optimizer)
    if jump is None or jump.harm is None:
        return
    group = f" of parameter group {jump.group}" if optimizer.rates.shape[1] > 1 else ""
    sentence = (
        f"The learning rate{group} jumped from {number(jump.before)} to {number(jump.after)} at step {jump.step:,}, "
        f"and the loss did not recover."
    )
    rate = Evidence("learning rate", jump.after, ABOVE * jump.highest, jump.step)
    norm = _norm(optimizer, jump.step)
    yield Symptom("error", sentence, (rate, *norm, jump.harm), _fix(jump), "likely", call_site_of(run, optimizer, "step"))


def _fix(jump: Jump) -> str:
    start = max(jump.before / jump.after, START)
    return (
        f"# whatever sets the rate at step {jump.step:,}: step a scheduler once a batch or once an epoch, as it counts;\n"
        f"# if the higher rate is meant, set lr={number(jump.after)} and go up to it slowly:\n"
        f"scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor={number(start)}, total_iters=1000)"
    )


def _norm(optimizer: OptimizerRun, step: int) -> tuple[Evidence, ...]:
    """The largest gradient norm among the steps that follow, against the median of those before."""
    steps = optimizer.steps
    finite = ~steps.missing["norm"] & np.isfinite(steps.norm)
    before = steps.norm[finite & (steps.step <= step)][-LEAST:]
    after = finite & (steps.step > step) & (steps.step <= step + LEAST)
    if not len(before) or not after.any():
        return ()
    at = int(np.flatnonzero(after)[steps.norm[after].argmax()])
    return (Evidence("largest gradient norm after it", float(steps.norm[at]), float(np.median(before)), int(steps.step[at])),)
