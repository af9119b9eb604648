"""The fix that is a threshold: the command that runs the script again with it, and the line that does the same in the code."""

from __future__ import annotations

import shlex
from typing import Final

import numpy as np

from gradclip.analysis.candidates import finite_norms
from gradclip.analysis.gathered import Gathered, Layers, Optimizer
from gradclip.analysis.suggestion import Choice, suggest
from gradclip.analysis.words import number

__all__ = ["choice_before", "clip_fix", "script_of", "start_fix"]

USUAL: Final = "global_norm:1.0"
"""What most published recipes clip with; for a run without a norm to learn from."""
SHORT: Final = 0.01
"""Of the weights, as the longest step of SGD. Of the thresholds tried on four nets that diverged at once (dense, linear, RNN,
LSTM), which were the first norm, 1, and 0.1 or 0.01 of the weights over the learning rate, it gave the lowest loss in each."""
LOWER: Final = 10.0
"""By which a learning rate is lowered at a time."""


def script_of(run: Gathered) -> str:
    """Return the command line behind ``python``; ``train.py`` where it is not known."""
    command = run.meta.get("command")
    words = [str(word) for word in command[1:]] if isinstance(command, list) else []
    known = words and (words[0].endswith(".py") or words[0] == "-m")
    return shlex.join(words) if known else "train.py"


def choice_before(optimizer: Optimizer, step: int) -> Choice | None:
    """Suggest a recipe from the steps before one: norms that have exploded say nothing about what is usual."""
    steps, layers = optimizer.steps, optimizer.layers
    rows = layers.steps < step
    earlier = Layers(layers.groups, layers.steps[rows], layers.norms[rows], layers.missing[rows])
    norms = finite_norms(steps.norm[(steps.step < step) & ~steps.missing["norm"]])
    choices = suggest(norms, earlier).choices
    return choices[0] if choices else None


def clip_fix(run: Gathered, optimizer: Optimizer, step: int) -> str:
    """Return the command and the line of code, with the threshold that the steps before ``step`` ask for."""
    choice = choice_before(optimizer, step)
    if choice is None:
        return _told(run, USUAL, "the usual first try: this run has no sound norm to learn a threshold from")
    return _told(run, choice.recipe, f"before step {step:,} it would have clipped {choice.share}")


def start_fix(run: Gathered, optimizer: Optimizer) -> str:
    """Return the same for a run that broke in its first steps: its only sound norm is the first.

    The threshold is at most that norm, and with plain SGD no step is longer than ``SHORT`` of the weights; and since it may be
    the learning rate that is too large for any gradient, a lower one is told, too.
    """
    steps = optimizer.steps
    norms = finite_norms(steps.norm)
    weights = finite_norms(steps.weight_norm)
    rate = float(np.nanmax(optimizer.rates[0])) if optimizer.rates.size else 0.0
    limits = [float(norms[0])] if len(norms) else []
    if rate > 0 and len(weights) and weights[0] > 0:
        limits.append(SHORT * float(weights[0]) / rate)
    if not limits or not min(limits) > 0:
        return _told(run, USUAL, "the usual first try")
    fix = _told(
        run, f"global_norm:{float(f'{min(limits):.2g}')}", "from the first step alone: those after it were broken already"
    )
    lower = f"\n# it broke within its first steps, so also try lr={number(rate / LOWER)} in place of {number(rate)}"
    return fix + (lower if rate > 0 else "")


def _told(run: Gathered, recipe: str, why: str) -> str:
    return (
        f"gradclip run --clip {shlex.quote(recipe)} {script_of(run)}  # {why}\n"
        f"# or in the code, once before the loop:\n"
        f'gradclip.attach(optimizer, "{recipe}")'
    )
