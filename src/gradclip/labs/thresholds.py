"""Thresholds: too low, right, too high, and the rules that set one themselves.

The character model of the lab ``charlm``, an RNN at learning rate 4, where clipping decides; only the method differs.

What to look at:

- the bowl: a threshold that is far too low stalls (every step is tiny), one that is far too high does nothing, and between
  them there is a range of a decade or two in which any will do;
- the rules that set it themselves and know nothing of the task: ``zclip`` looks for spikes in the history of the norms, and
  lets a step pass that is as long as those before it, however long these were; ``autoclip`` cuts to a low percentile of that
  history, nearly always; ``trust`` and ``auto`` look at the weights and the learning rate, and cut the steps that are too long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from gradclip.labs import charlm
from gradclip.labs.lab import Arm, Curves
from gradclip.labs.pictures import against, listed
from gradclip.report.charts import COLOURS, MUTED, Chart, Line

SWEEP = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
RULES = ("auto", "trust:0.02", "autoclip", "zclip")

# --- score ------------------------------------------------------------------------------------------------------------


def threshold(run: Curves) -> float:
    """The fixed threshold of an arm; NaN where it has none."""
    name, _, number = run.arm.clip.partition(":")
    return float(number) if run.arm.clips and name == "global_norm" and _is_number(number) else math.nan


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def fixed(runs: Sequence[Curves]) -> list[Curves]:
    """The arms with a fixed threshold, from the lowest to the highest."""
    return sorted((run for run in runs if math.isfinite(threshold(run))), key=threshold)


def others(runs: Sequence[Curves]) -> list[Curves]:
    """The arms without one: adaptive rules, and no clipping."""
    return [run for run in runs if not math.isfinite(threshold(run))]


# --- pictures and verdict ---------------------------------------------------------------------------------------------


def pictures(runs: Sequence[Curves]) -> list[Chart]:
    """The score over the threshold, with a level line for each method that has none."""
    swept = fixed(runs)
    if len(swept) < 2:
        return []
    places = [threshold(run) for run in swept]
    bowl = Line("fixed threshold", [charlm.bits_per_character(run) for run in swept], COLOURS[0], steps=places)
    levels = [_level(run, i, (places[0], places[-1])) for i, run in enumerate(others(runs))]
    see = (
        "The bowl is the fixed threshold: too low on its left, too high on its right. A level line is a method that has no "
        "threshold to set."
    )
    return [
        against(
            "The score by threshold", see, [bowl, *levels], x="threshold", y="bits per character", log_x=True
        )
    ]  # fmt: skip


def _level(run: Curves, place: int, ends: tuple[float, float]) -> Line:
    colour = COLOURS[1 + place % (len(COLOURS) - 1)] if run.arm.clips else MUTED
    return Line(run.arm.method, [charlm.bits_per_character(run)] * 2, colour, dashed=True, steps=ends)


def judge(runs: Sequence[Curves]) -> str:
    """The best threshold, the ends of the sweep, and what the other methods reach."""
    swept, rest = fixed(runs), others(runs)
    said = []
    if swept:
        best, low, high = min(swept, key=_known), swept[0], swept[-1]
        said.append(f"the best fixed threshold is {threshold(best):g} ({charlm.bits(best)})")
        said += [
            f"{threshold(run):g} is too {word} ({charlm.bits(run)})"
            for run, word in ((low, "low"), (high, "high"))
            if run is not best
        ]
    said += [f"{run.arm.how} it is {charlm.bits(run)}" for run in rest]
    return f"In bits per character, {listed(said)}."


def _known(run: Curves) -> float:
    score = charlm.bits_per_character(run)
    return math.inf if math.isnan(score) else score


LAB = replace(
    charlm.LAB,
    name="thresholds",
    title="Too low, right, too high: the threshold, and the rules that need none",
    about=(
        f"{charlm.LAB.about} Here an RNN at a learning rate of 4, where clipping decides, under a sweep of fixed thresholds "
        "and under rules that set the threshold themselves."
    ),
    arms=(
        Arm("RNN", 4.0),
        *(Arm("RNN", 4.0, f"global_norm:{each}") for each in SWEEP),
        *(Arm("RNN", 4.0, rule) for rule in RULES),
    ),
    steps=300,
    pictures=pictures,
    judge=judge,
    detailed=lambda arm: arm.clip in ("global_norm:0.001", "global_norm:0.1", "global_norm:100.0", "auto"),
)
