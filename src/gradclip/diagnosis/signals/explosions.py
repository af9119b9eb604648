"""Where the norms of a run grew out of bounds and took the loss with them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.readings.losses import Losses, losses_of
from gradclip.diagnosis.readings.rolling_statistics import rolling_statistics
from gradclip.diagnosis.readings.run_data import OptimizerRun
from gradclip.diagnosis.readings.weak_cache import weakly_cached
from gradclip.diagnosis.signals.loss_harm import SOON, applied_nonfinite, harm_after

__all__ = ["Explosion", "explosion_of"]

LEAST: Final = 20
"""Norms before a step that say what was usual; the median deviation of fewer is itself chance."""
TIMES: Final = 10.0
"""Times the median of the recent past. Single norms of 20 medians are normal in noisy runs; it is the harm that decides."""
SIGMAS: Final = 6.0
"""On the logarithm of the norm; OLMo-core skips steps beyond 6 standard deviations."""
EARLY: Final = 100.0
"""Times the first norm, in the first ``LEAST`` steps: a start without a past to compare with needs more."""
RUNAWAY: Final = 1000.0
"""By which the medians of the first and the last third differ. Sound runs that were measured stayed below 30."""
UNSEEN: Final = 1e6
"""The same where no loss was recorded to tell the harm."""
WORSE: Final = 2.0
"""Times its first value a loss must end above, after norms that grew through the whole run; or lie above for a while and not
fall below that part of it in the end, after a peak in the first steps."""
RUINED: Final = 10.0
"""Times the largest loss before it must a loss stay above after an early explosion, which has no spread to be held against."""
TRIED: Final = 200
"""So many outliers are looked at, the first ones: in a run with more they are the rule and no events."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Explosion:
    """The step at which it began, and what tells it."""

    step: int
    times: float
    """The norm, by what was usual before."""
    norm: Evidence
    harm: Evidence
    kind: Literal["sudden", "early", "gradual"] = "sudden"

    @property
    def fatal(self) -> bool:
        """Whether the run ended in numbers that are none."""
        return not math.isfinite(self.harm.value)


@weakly_cached
def explosion_of(optimizer: OptimizerRun) -> Explosion | None:
    """Return the first explosion that did harm: a sudden one, one in the first steps, or one over the whole run."""
    steps, norms = _applied(optimizer)
    if len(norms) < 2:
        return None
    detectors = (_early, _thrown, _sudden)
    return next(filter(None, (detect(optimizer, steps, norms) for detect in detectors)), None) or _gradual(optimizer)


def _applied(optimizer: OptimizerRun) -> tuple[NDArray[np.int64], Floats]:
    """The steps that moved the weights, and the norms that did: what clipping has tamed explodes no more."""
    steps = optimizer.steps
    norms = np.where(steps.missing["clipped_norm"], steps.norm, steps.clipped_norm)
    moved = ~steps.skipped & np.isfinite(norms) & (norms > 0)
    return steps.step[moved], norms[moved]


def _sudden(optimizer: OptimizerRun, steps: NDArray[np.int64], norms: Floats) -> Explosion | None:
    logs = np.log(norms)
    middle, spread = rolling_statistics(logs, LEAST)
    out = logs - middle > np.maximum(math.log(TIMES), SIGMAS * spread)
    for i in np.flatnonzero(out)[:TRIED].tolist():
        harm = harm_after(optimizer, int(steps[i]))
        if harm is not None:
            usual = math.exp(middle[i])
            limit = usual * max(TIMES, math.exp(min(SIGMAS * spread[i], 700.0)))
            return Explosion(int(steps[i]), norms[i] / usual, _norm(norms[i], limit, int(steps[i])), harm)
    return None


def _early(optimizer: OptimizerRun, steps: NDArray[np.int64], norms: Floats) -> Explosion | None:
    """An explosion in the first steps, of which there is no past; the loss must stay far above what it was before."""
    out = np.flatnonzero(norms[:LEAST] > EARLY * norms[0])
    losses = losses_of(optimizer)
    if not len(out):
        return None
    step, risen = int(steps[out[0]]), int(steps[np.flatnonzero(norms > TIMES * norms[0])[0]])
    sound, late = losses.values[losses.steps < risen], losses.values[losses.steps >= step]
    if not len(sound) or not len(late):
        return None
    level, limit = min(float(np.median(late)), float(np.median(late[:SOON]))), RUINED * float(np.abs(sound).max())
    if not level > limit:
        return None
    at = int(norms[:LEAST].argmax())
    harm = Evidence("median loss from there on", level, limit)
    return Explosion(step, norms[at] / norms[0], _norm(norms[at], EARLY * norms[0], int(steps[at])), harm, "early")


def _thrown(optimizer: OptimizerRun, steps: NDArray[np.int64], norms: Floats) -> Explosion | None:
    """A single peak in the first steps that threw the loss far up, from where it never learned.

    Norms that rise and stay are none: targets that grow, as in reinforcement learning, make them.
    """
    peak = int(norms[:LEAST].argmax())
    limit = TIMES * max(norms[0], float(np.median(norms[LEAST:])) if len(norms) > LEAST else np.inf)
    losses = losses_of(optimizer)
    risen = steps[np.flatnonzero(norms > TIMES / 2 * norms[0])[:1]]
    if not norms[peak] > limit or not len(risen):
        return None
    sound, late = losses.values[losses.steps < risen[0]], losses.values[losses.steps > steps[peak]]
    if not len(sound) or len(late) < SOON:
        return None
    worst = float(np.abs(sound).max())
    level, ended = float(np.median(late[:SOON])), float(np.median(late[-(len(late) // 3) :]))
    if not (level > WORSE * worst and ended > worst / WORSE):
        return None
    harm = Evidence(f"median loss in the {SOON} steps after it", level, WORSE * worst)
    step = int(steps[peak])
    return Explosion(step, norms[peak] / norms[0], _norm(norms[peak], limit, step), harm, "early")


def _gradual(optimizer: OptimizerRun) -> Explosion | None:
    """Norms before clipping that grow through the whole run: clipping tames the steps, but not what makes the norms grow."""
    every = optimizer.steps
    finite = ~every.missing["norm"] & np.isfinite(every.norm) & (every.norm > 0) & ~every.skipped
    steps, norms = every.step[finite], every.norm[finite]
    if len(norms) < LEAST:
        return None
    thirds = [float(np.median(part)) for part in np.array_split(norms, 3)]
    losses = losses_of(optimizer)
    needed = RUNAWAY if len(losses.values) else UNSEEN
    if not (thirds[0] < thirds[1] < thirds[2] and thirds[2] >= needed * thirds[0]):
        return None
    last = losses.values[-max(1, len(losses.values) // 3) :]
    harm = _far_above(losses, last) if len(last) else _lost(optimizer)
    if harm is None:
        return None
    limit = needed * thirds[0]
    began = int(steps[np.flatnonzero(norms > TIMES * thirds[0])[0]])
    norm = Evidence("median gradient norm of the last third", thirds[2], limit)
    return Explosion(began, thirds[2] / thirds[0], norm, harm, "gradual")


def _far_above(losses: Losses, late: Floats) -> Evidence | None:
    """The last losses, where most of them are far above the first ones."""
    level, limit = float(np.median(late)), WORSE * abs(losses.start)
    return Evidence("median loss of the last third", level, limit) if level > limit else None


def _lost(optimizer: OptimizerRun) -> Evidence:
    """What tells the harm without a loss: a NaN or Inf that reached the weights, or else the largest norm."""
    steps, bad = optimizer.steps, applied_nonfinite(optimizer)
    if bad.any():
        return Evidence("gradient norm", float("nan"), step=int(steps.step[bad][0]))
    at = int(np.where(np.isfinite(steps.norm), steps.norm, 0.0).argmax())
    return Evidence("largest gradient norm", float(steps.norm[at]), step=int(steps.step[at]))


def _norm(value: float, limit: float, step: int) -> Evidence:
    return Evidence("gradient norm", float(value), float(limit), step)
