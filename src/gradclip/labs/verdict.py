"""One sentence on what clipping did, computed from the scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradclip.labs.lab import Curves, Lab, Pair, number, paired
from gradclip.labs.pictures import listed

__all__ = ["NOTICEABLE", "verdict"]

NOTICEABLE = 0.05
"""A smaller relative difference between two single runs is called none: another seed moves a score by about as much."""


def verdict(lab: Lab, runs: Sequence[Curves]) -> str:
    """Say what clipping did to the score of each setting, in one sentence.

    Returns:
        For example ``In bits per character, clipping helped RNN at lr 4 (2.32 with global_norm:1.0, 6.18 without).``
    """
    if lab.judge:
        return lab.judge(runs)
    pairs = paired(runs)
    if not pairs:
        return f"There is nothing to compare: {'; '.join(_alone(lab, run) for run in runs)}."
    said: dict[str, list[str]] = {}
    for pair in pairs:
        said.setdefault(_effect(lab, pair), []).append(_compared(lab, pair))
    return f"In {lab.score_name}, clipping {'; it '.join(f'{effect} {listed(cases)}' for effect, cases in said.items())}."


def _effect(lab: Lab, pair: Pair) -> str:
    clipped, without = lab.score(pair.clipped), lab.score(pair.without)
    if not math.isfinite(clipped):
        return "hurt" if math.isfinite(without) else "did not prevent the divergence of"
    if not math.isfinite(without):
        return "prevented the divergence of"
    if abs(clipped - without) <= NOTICEABLE * min(clipped, without):
        return "made no difference to"
    return "helped" if clipped < without else "hurt"


def _compared(lab: Lab, pair: Pair) -> str:
    clipped, without = number(lab.score(pair.clipped)), number(lab.score(pair.without))
    return f"{pair.clipped.arm.setting} ({clipped} with {pair.clipped.arm.clip}, {without} without)"


def _alone(lab: Lab, run: Curves) -> str:
    return f"{run.arm.name} ends at {number(lab.score(run))} {lab.score_name}"
