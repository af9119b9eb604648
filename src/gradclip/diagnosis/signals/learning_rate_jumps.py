"""Where a learning rate was raised from one step to the next, and whether the loss paid for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.readings.rolling_statistics import WINDOW
from gradclip.diagnosis.readings.run_data import OptimizerRun
from gradclip.diagnosis.signals.loss_harm import harm_after

__all__ = ["Jump", "harmful_jump", "raised_near"]

TIMES: Final = 5.0
"""Of the rate before. The steps of a gradual warm-up are less, but for its very first ones."""
ABOVE: Final = 2.0
"""Times the highest rate until then: a warm restart goes back to it, or a little above."""
LEAST: Final = 20
"""Steps before a jump that are a past; a warm-up begins with a jump."""
TRIED: Final = 100
"""So many jumps are looked at."""
NOTABLE: Final = 2.0
"""Times the rate ``WINDOW`` steps ago, with which the losses of the recent past were reached: it may well raise the loss."""


@dataclass(frozen=True)
class Jump:
    """One parameter group's learning rate, raised in one step, and the harm that followed."""

    step: int
    group: int
    before: float
    after: float
    highest: float
    """The largest it had been before."""
    harm: Evidence | None = None


def harmful_jump(optimizer: OptimizerRun) -> Jump | None:
    """Return the first jump of a learning rate to a height it never had after which the loss was clearly worse."""
    early = optimizer.steps.step[:LEAST]
    jumps = [one for one in _jumps(optimizer) if one.after > ABOVE * one.highest and one.step > early[-1]]
    for jump in jumps[:TRIED]:
        # The loss of that step was computed before it: what the jump did shows from the next one on.
        harm = harm_after(optimizer, jump.step)
        if harm is not None:
            return replace(jump, harm=harm)
    return None


def raised_near(optimizer: OptimizerRun, step: int) -> bool:
    """Return whether a learning rate at a step, or in its recent past, is well above the first one of these."""
    near = (optimizer.rate_steps >= step - WINDOW) & (optimizer.rate_steps <= step)
    rates = optimizer.rates[near]
    return bool(len(rates) and (rates > NOTABLE * rates[0]).any())


def _jumps(optimizer: OptimizerRun) -> list[Jump]:
    """The steps at which the rate of a group became many times the one before; from 0 is no jump."""
    steps, rates = optimizer.rate_steps, optimizer.rates
    found = []
    for group, column in enumerate(rates.T):
        highest = np.maximum.accumulate(np.where(np.isfinite(column), column, 0.0))
        for i in np.flatnonzero((column[:-1] > 0) & (column[1:] >= TIMES * column[:-1])).tolist():
            found.append(Jump(int(steps[i + 1]), group, float(column[i]), float(column[i + 1]), float(highest[i])))
    return sorted(found, key=lambda one: (one.step, -one.after))
