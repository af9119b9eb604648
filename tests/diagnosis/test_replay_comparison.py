"""Whether a change helped, from three runs with known losses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradclip.diagnosis.advice.replay_comparison import compare_replays
from gradclip.diagnosis.readings.losses import final_loss, first_difference
from gradclip.runs import Run
from tests.diagnosis.runs import recorded


@pytest.fixture
def steps(tmp_path):
    def made(losses, norms=None):
        made.count += 1
        rows = [[norm] for norm in norms or [1.0] * len(losses)]
        path = recorded(tmp_path / f"{made.count}.gradclip", rows, losses=list(losses))
        with Run.open(path) as run:
            return run.steps(0)

    made.count = 0
    return made


def ending(loss, length=100):
    """Losses that fall from 10 and stay at ``loss`` for the last tenth."""
    return [10.0] * (length - length // 10) + [loss] * (length // 10)


@pytest.mark.parametrize(
    ("recorded_end", "control_end", "changed_end", "verdict"),
    [
        (2.0, 2.0, 1.0, "helps"),
        (2.0, 2.0, 1.99, "makes no difference"),  # less than 1 %
        (2.0, 2.0, 1.97, "helps"),
        (2.0, 2.0, 2.03, "harms"),
        (2.0, 2.2, 1.5, "makes no difference"),  # not three times the noise of 0.2
        (2.0, 2.2, 1.3, "helps"),
        (2.0, 2.2, 2.9, "harms"),
        (math.nan, math.nan, 3.0, "helps"),
        (math.nan, math.inf, 3.0, "helps"),
        (math.nan, math.nan, 11.0, "is not enough"),  # above the 10 it began with
        (2.0, 2.0, math.nan, "harms"),
        (math.nan, math.nan, math.nan, "makes no difference"),
        (math.nan, 2.0, math.inf, "harms"),
    ],
)
def test_the_verdict_asks_for_more_than_chance(steps, recorded_end, control_end, changed_end, verdict):
    found = compare_replays("auto", *(steps(ending(end)) for end in (recorded_end, control_end, changed_end)))
    assert found.verdict == verdict
    assert found.sentence.startswith(f"auto {verdict}: the loss ends at ")


def test_an_exact_repetition_is_told_from_a_script_that_is_not_seeded(steps):
    one, other = steps(ending(2.0)), steps(ending(1.0))
    same = compare_replays("auto", one, one, other)
    assert (same.reproducible, same.diverged_at) == (True, 90)
    assert "to the bit" in same.notes[0]
    assert same.notes[1] == "The clipped run leaves the unchanged one at step 90."
    noisy = compare_replays("auto", one, other, other)
    assert (noisy.reproducible, noisy.diverged_at) == (False, None)
    assert "did not repeat" in noisy.notes[0]
    assert noisy.notes[1] == "The clipping never changed a loss or a norm."


def test_runs_of_different_length_are_compared_as_far_as_the_shortest_goes(steps):
    long = steps(ending(0.5, 200))
    short = steps([3.0] * 50)
    assert final_loss(long, 50) == 10.0
    assert compare_replays("auto", short, short, long).changed == 10.0


def test_where_runs_part_a_nan_is_like_another(steps):
    assert first_difference(steps([1.0, math.nan, 2.0]), steps([1.0, math.nan, 2.0])) is None
    assert first_difference(steps([1.0, math.nan, 2.0]), steps([1.0, 1.0, 2.0])) == 1
    assert first_difference(steps([1.0, 1.0]), steps([1.0, 1.0], [1.0, 1.5])) == 1
    assert first_difference(steps([1.0]), steps([1.0, 2.0])) is None


def test_without_a_loss_nothing_is_claimed(steps, tmp_path):
    path = recorded(tmp_path / "none.gradclip", [[1.0]] * 5)
    with Run.open(path) as run:
        without = run.steps(0)
    without.missing["loss"][:] = True
    assert np.isnan(final_loss(without))
    assert compare_replays("auto", without, without, without).verdict == "makes no difference"
