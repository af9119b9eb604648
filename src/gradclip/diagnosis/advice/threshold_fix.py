"""The fix that is a threshold: the command that runs the script again with it, and the line that does the same in the code."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import Final

from gradclip.diagnosis.advice.optimizer_suggestion import suggestion_before, suggestion_of
from gradclip.diagnosis.formatting import number
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.signals.explosions import Explosion

__all__ = ["clip_fix", "explosion_fix", "script_of", "attach_fix"]

USUAL: Final = "global_norm:1.0"
"""What most published recipes clip with; for a run without a norm to learn from."""
LOWER: Final = 10.0
"""By which a learning rate is lowered at a time."""
WITH_A_VALUE: Final = ("-W", "-X", "--check-hash-based-pycs")
"""Python's own options that stand apart from their values."""


def script_of(run: RunData) -> str:
    """Return the command line behind ``python`` and its options; ``train.py`` where it is not known."""
    command = run.meta.get("command")
    words = _without_options([str(word) for word in command[1:]]) if isinstance(command, list) else []
    known = words and (words[0].endswith(".py") or words[0] == "-m")
    return shlex.join(words) if known else "train.py"


def clip_fix(run: RunData, optimizer: OptimizerRun, step: int) -> str:
    """Return the command and the line of code, with the threshold that the steps before ``step`` ask for."""
    choices = suggestion_before(optimizer, step).choices
    if not choices:
        return _commands(run, USUAL, "the usual first try: this run has no sound norm to learn a threshold from")
    limit = _in_force(optimizer, step)
    if _limit_of(choices[0].recipe) >= limit:
        return _commands(run, f"global_norm:{limit / 2:.2g}", f"the {number(limit)} in force was not enough: half of it")
    return _commands(run, choices[0].recipe, f"before step {step:,} it would have clipped {choices[0].share}")


def explosion_fix(run: RunData, optimizer: OptimizerRun, found: Explosion) -> str:
    """Return the same for norms that exploded; in the first steps it may be the learning rate, so a lower one is told, too."""
    if found.kind != "early":
        return clip_fix(run, optimizer, found.step)
    choices = suggestion_of(optimizer).choices
    if not choices:
        return _commands(run, USUAL, "the usual first try")
    rate = optimizer.first_rate
    lower = f"\n# it broke within its first steps, so also try lr={number(rate / LOWER)} in place of {number(rate)}"
    fix = _commands(run, choices[0].recipe, "from the first step alone: those after it were broken already")
    return fix + (lower if rate > 0 else "")


def attach_fix(optimizer: OptimizerRun) -> str:
    """Return a line of code that clips as the run's norms ask for, and how often it would; a comment where they do not say."""
    advice = suggestion_of(optimizer)
    if not advice.choices:
        return "# " + " ".join(advice.notes)
    best = advice.choices[0]
    return f'gradclip.attach(optimizer, "{best.recipe}")  # would clip {best.share}'


def _in_force(optimizer: OptimizerRun, step: int) -> float:
    """The threshold that the run was clipped to around a step; infinite where it was not."""
    steps = optimizer.steps
    limits = steps.threshold[(steps.step <= step) & steps.clipped & (steps.threshold > 0)]
    return float(limits[-1]) if len(limits) else math.inf


def _limit_of(recipe: str) -> float:
    """The threshold of a global norm; 0 for recipes that are measured otherwise."""
    name, _, limit = recipe.partition(":")
    return float(limit) if name == "global_norm" else 0.0


def _commands(run: RunData, recipe: str, why: str) -> str:
    again = [
        "# does it help? twice more, unchanged and clipped:",
        f"gradclip replay --clip {shlex.quote(recipe)} {shlex.quote(str(run.path))}",
    ]
    lines = [
        f"# {why}:",
        f"gradclip run --clip {shlex.quote(recipe)} {script_of(run)}",
        *(again if run.meta.get("watched") else []),
        "# or in the code, once before the loop:",
        f'gradclip.attach(optimizer, "{recipe}")',
    ]
    return "\n".join(lines)


def _without_options(words: Sequence[str]) -> list[str]:
    """Leave out what Python itself takes, up to the script or ``-m``."""
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-m", "-c", "-"):
        at += 2 if words[at] in WITH_A_VALUE else 1
    return list(words[at:])
