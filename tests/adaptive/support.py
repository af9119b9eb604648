"""A recorded spiky run, and the way to put a rule through it in any array library."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradclip import thresholds
from gradclip.thresholds import Context, Cosine, Linear, Threshold, Warmup

STEPS = 1000
RULES: list[Threshold] = [
    thresholds.ZScore(),
    thresholds.ZScore(1.5, 0.9, 10, 2.0),
    thresholds.EmaRatio(),
    thresholds.EmaRatio(1.2, 0.9, 5, 3.0, 1e-6),
    thresholds.Ema(),
    thresholds.Ema(1.1, 0.98),
    thresholds.Ema(Cosine(1.5, 1.1, 100, after=50)),
    thresholds.Ema(Linear(0.6, 0.7, 300, after=400), 0.95, min_gain=0.9),
    thresholds.SecondMoment(),
    thresholds.SecondMoment(10.0, 0.98, 3),
    thresholds.Growth(),
    thresholds.Growth(1.5, 0.1),
    thresholds.Percentile(),
    thresholds.Percentile(95.0),
    thresholds.Quantile(),
    thresholds.Quantile(0.95, 50),
    thresholds.Outlier(),
    thresholds.Outlier(2.0, 20, 5),
    thresholds.Typical(),
    thresholds.Typical(1.5, 20, 3),
    thresholds.Mean(),
    thresholds.Mean(0.9),
    thresholds.Moments(),
    thresholds.Moments(0.5, 0.98),
    thresholds.Minimum(thresholds.ZScore(), thresholds.Quantile(0.9, 100)),
]
DEFAULTS = RULES[::2]
PER_BLOCK = [rule for rule in RULES if not isinstance(rule, thresholds.EmaRatio)]
LOSES_THE_SCALE = thresholds.Moments
"""The rule whose limit is no norm in the gradient's unit."""


def moves(rule: Threshold) -> bool:
    """Whether a rule knows the step of the run."""
    return any(isinstance(value, Warmup) for value in vars(rule).values())


def spiky_norms(steps: int = STEPS, blocks: int = 3, seed: int = 0, zeros: float = 0.03) -> np.ndarray:
    """Norms of a run, one row a step: a log-normal that drifts, Pareto spikes in one step of fifty, zeros now and then."""
    rng = np.random.default_rng(seed)
    drift = np.cumsum(0.02 * rng.standard_normal((steps, blocks)), axis=0)
    norms = np.exp(0.25 * rng.standard_normal((steps, blocks)) + drift - 1)
    norms *= np.where(rng.random((steps, blocks)) < 0.02, 2 + rng.pareto(1.1, (steps, blocks)) * 5, 1)
    norms[rng.random((steps, blocks)) < zeros] = 0.0
    if zeros:
        norms[[5, steps // 2]] = 0.0  # and steps without any gradient at all
    return norms


def run(rule: Threshold, norms: Any) -> tuple[list[Any], Any]:
    """Put a rule through a run; return the limits at every step and the last state."""
    state = rule.init(norms[0])
    found = []
    for step in range(len(norms)):
        limits, state = rule.limits(norms[step], state, Context(step))
        found.append(limits)
    return found, state


def run_numpy(rule: Threshold, norms: np.ndarray) -> np.ndarray:
    """The limits of a run in NumPy."""
    return np.stack(run(rule, norms)[0])
