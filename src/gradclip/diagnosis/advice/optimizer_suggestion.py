"""Which clipping a run asks for, learnt from the steps at which it was sound."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from gradclip.diagnosis.advice.recipe_suggestion import Choice, Suggestion, suggest
from gradclip.diagnosis.advice.threshold_candidates import finite_norms
from gradclip.diagnosis.readings.run_data import Layers, OptimizerRun
from gradclip.diagnosis.signals.explosions import Explosion, explosion_of

__all__ = ["suggestion_before", "suggestion_of"]

SHORT: Final = 0.01
"""Of the weights, as the longest step of SGD. Of the thresholds tried on four nets that diverged at once (dense, linear, RNN,
LSTM), which were the first norm, 1, and 0.1 or 0.01 of the weights over the learning rate, it gave the lowest loss in each."""


def suggestion_of(optimizer: OptimizerRun) -> Suggestion:
    """Suggest a recipe for one optimizer of a run; where its norms exploded, from the steps before."""
    explosion = explosion_of(optimizer)
    if explosion is not None:
        return _exploded(optimizer, explosion)
    bad, clipped = int(optimizer.bad.sum()), bool(optimizer.steps.clipped.any())
    return suggest(optimizer.norms, optimizer.layers, bad=bad, clipped=clipped)


def suggestion_before(optimizer: OptimizerRun, step: int) -> Suggestion:
    """Suggest a recipe from the steps before one."""
    steps, layers = optimizer.steps, optimizer.layers
    rows = layers.steps < step
    earlier = Layers(layers.groups, layers.steps[rows], layers.norms[rows], layers.missing[rows])
    return suggest(finite_norms(steps.norm[(steps.step < step) & ~steps.missing["norm"]]), earlier)


def _exploded(optimizer: OptimizerRun, explosion: Explosion) -> Suggestion:
    early = explosion.kind == "early"
    found = _from_the_first(optimizer) if early else suggestion_before(optimizer, explosion.step)
    until = "the first step" if early else f"the steps before {explosion.step:,}"
    return replace(found, notes=(f"The norms exploded: this rests on {until} alone.", *found.notes))


def _from_the_first(optimizer: OptimizerRun) -> Suggestion:
    """The threshold of a run that broke in its first steps: at most its first norm, and for SGD ``SHORT`` of the weights."""
    norms, weights = finite_norms(optimizer.steps.norm), finite_norms(optimizer.steps.weight_norm)
    rate = optimizer.first_rate
    limits = [float(norms[0])] if len(norms) else []
    if rate > 0 and len(weights) and weights[0] > 0:
        limits.append(SHORT * float(weights[0]) / rate)
    if not limits or not min(limits) > 0:
        return Suggestion(())
    why = "the run broke in its first steps, and those after the first were broken already"
    return Suggestion((Choice(f"global_norm:{float(f'{min(limits):.2g}')}", "nearly every step", why),))
