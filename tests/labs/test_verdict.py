"""The verdict follows from the scores alone."""

from __future__ import annotations

import math

import pytest

from gradclip.labs.lab import Arm, Curves, Lab, last_mean
from gradclip.labs.verdict import verdict

LAB = Lab("toy", "Toy", "", (), lambda *_: None, 1, lambda run: last_mean(run.losses), "loss")


def curves(lr, loss, clip=None):
    return Curves(Arm("RNN", lr, clip) if clip else Arm("RNN", lr), losses=[loss])


@pytest.mark.parametrize(
    ("clipped", "without", "effect", "numbers"),
    [
        (2.0, 6.0, "helped", "2.00 with global_norm:1.0, 6.00 without"),
        (6.0, 2.0, "hurt", "6.00 with global_norm:1.0, 2.00 without"),
        (2.0, 2.09, "made no difference to", "2.00 with global_norm:1.0, 2.09 without"),
        (2.0, 2.11, "helped", "2.00 with global_norm:1.0, 2.11 without"),
        (2.0, math.nan, "prevented the divergence of", "2.00 with global_norm:1.0, diverged without"),
        (math.nan, 2.0, "hurt", "diverged with global_norm:1.0, 2.00 without"),
        (math.inf, math.nan, "did not prevent the divergence of", "diverged with global_norm:1.0, diverged without"),
    ],
)
def test_one_pair(clipped, without, effect, numbers):
    runs = [curves(1, without), curves(1, clipped, "global_norm:1.0")]
    assert verdict(LAB, runs) == f"In loss, clipping {effect} RNN at lr 1 ({numbers})."


def test_settings_with_the_same_effect_are_said_together():
    runs = [
        curves(lr, loss, clip) for lr, a, b in [(1, 6, 2), (2, 7, 3), (3, 1, 1)] for loss, clip in [(a, None), (b, "value:1")]
    ]
    assert verdict(LAB, runs) == (
        "In loss, clipping helped RNN at lr 1 (2.00 with value:1, 6.00 without) and RNN at lr 2 (3.00 with value:1, 7.00 "
        "without); it made no difference to RNN at lr 3 (1.00 with value:1, 1.00 without)."
    )


def test_without_a_pair_there_is_nothing_to_compare():
    assert verdict(LAB, [curves(1, 2.5)]) == "There is nothing to compare: RNN at lr 1, no clipping ends at 2.50 loss."
