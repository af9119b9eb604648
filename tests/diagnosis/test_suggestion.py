"""Candidates and suggestions on series whose right answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradclip import parse
from gradclip.diagnosis.advice.optimizer_suggestion import suggestion_of
from gradclip.diagnosis.advice.recipe_suggestion import suggest
from gradclip.diagnosis.advice.threshold_candidates import candidates, would_clip
from tests.diagnosis.runs import read, recorded

QUIET = np.random.default_rng(0).normal(1.0, 0.1, 1000)
NAN = math.nan


def spiky(every=20, height=50.0):
    norms = QUIET.copy()
    norms[::every] *= height
    return norms


def test_candidates_are_percentiles_and_shares():
    found = candidates(np.arange(1, 1001) / 10)
    assert [c.percentile for c in found] == [50, 75, 90, 95, 99, 99.9]
    np.testing.assert_allclose([c.share for c in found], [0.5, 0.25, 0.1, 0.05, 0.01, 0.001])
    np.testing.assert_allclose([c.late_share for c in found], [1.0, 0.5, 0.2, 0.1, 0.02, 0.002])
    assert found[2].threshold == pytest.approx(90.01)
    assert found[2].late_threshold == pytest.approx(95.01)


def test_what_is_not_finite_is_no_candidate():
    assert candidates([NAN, math.inf]) == []
    assert candidates([1.0, NAN, 1.0])[0].threshold == 1.0
    assert would_clip(np.array([1.0, 2.0]), 2.0) == 0.5 - 0.5  # a norm at the threshold stays as it is


def test_quiet_norms_get_a_guard():
    advice = suggest(QUIET)
    assert advice.recipe == f"global_norm:{float(f'{2 * np.percentile(QUIET[500:], 99):.2g}')}"
    assert advice.choices[0].share == "0% of steps"
    assert advice.notes == ()


def test_spikes_get_the_90th_percentile():
    advice = suggest(spiky())
    assert float(advice.recipe.removeprefix("global_norm:")) == pytest.approx(np.percentile(spiky()[500:], 90), rel=0.05)
    assert "25 of 500 norms spiked" in advice.sentence


def test_the_start_does_not_set_the_threshold():
    start = np.concatenate([QUIET[:500] * 1000, QUIET[500:]])
    assert suggest(start).recipe == suggest(QUIET).recipe


def test_few_steps_are_said_to_be_few():
    advice = suggest([1.0, 1.1, 0.9])
    assert advice.recipe == "global_norm:2.2"
    assert "Only 3 steps" in advice.notes[0]


@pytest.mark.parametrize("norms", [[], [NAN, NAN], [0.0, 0.0], [math.inf]])
def test_nothing_is_suggested_from_nothing(norms):
    advice = suggest(norms)
    assert advice.recipe is None
    assert advice.sentence == "No clipping can be suggested."
    assert "before clipping" in advice.notes[0]


def test_mostly_zero_norms_do_not_ask_for_a_threshold_of_zero():
    advice = suggest([0.0] * 950 + [1.0] * 50)
    assert all(parse(choice.recipe) for choice in advice.choices)
    assert "global_norm:0.0" not in [choice.recipe for choice in advice.choices]


def test_non_finite_steps_are_left_to_the_policy():
    advice = suggest([*QUIET, NAN], bad=1)
    assert advice.recipe == suggest(QUIET).recipe
    assert "1 step held a NaN or Inf: no threshold helps" in advice.notes[0]


def test_moving_norms_are_said_to_move():
    assert any("still moving" in note for note in suggest(np.geomspace(100, 1, 1000)).notes)
    assert not any("still moving" in note for note in suggest(QUIET).notes)


def test_one_wild_tensor_gets_tensor_norm(tmp_path):
    rows = np.random.default_rng(0).uniform(0.9, 1.1, (400, 4))
    rows[::20, 2] *= 60
    optimizer = read(recorded(tmp_path / "a", rows.tolist())).optimizers[0]
    advice = suggestion_of(optimizer)
    assert advice.recipe == "tensor_norm:1.1"
    assert "w2 alone makes the spikes" in advice.sentence
    assert advice.choices[0].share == "some tensor at 5.0% of steps"


def test_one_wild_module_gets_group_norm(tmp_path):
    names = [*(f"body.{i}" for i in range(6)), *(f"head.{i}" for i in range(3))]
    rows = np.random.default_rng(0).uniform(0.9, 1.1, (400, 9))
    rows[::20, 6:] *= 60
    optimizer = read(recorded(tmp_path / "a", rows.tolist(), names=names), most=2).optimizers[0]
    recipe = suggestion_of(optimizer).recipe
    assert recipe == "group_norm:1.8|2.6,patterns=head.*|*"  # √3 and √6, and what the noise adds
    assert parse(recipe).scope.patterns == ("head.*", "*")


def test_spikes_of_all_tensors_are_no_ones_own(tmp_path):
    rows = np.random.default_rng(0).uniform(0.9, 1.1, (400, 4))
    rows[::20] *= 60
    assert suggestion_of(read(recorded(tmp_path / "a", rows.tolist())).optimizers[0]).recipe.startswith("global_norm:")


def test_a_tensor_that_is_always_the_largest_makes_no_spikes_of_its_own(tmp_path):
    rows = np.random.default_rng(0).uniform(0.9, 1.1, (400, 4))
    rows[:, 1] *= 30
    rows[::20] *= 60
    assert suggestion_of(read(recorded(tmp_path / "a", rows.tolist())).optimizers[0]).recipe.startswith("global_norm:")


@pytest.mark.parametrize("norms", [QUIET, spiky(), [1.0], QUIET * 1e-9, QUIET * 1e9])
def test_every_recipe_can_be_used(norms):
    for choice in suggest(norms).choices:
        assert str(parse(choice.recipe))


def test_a_clipped_run_is_said_to_be_one():
    assert "The run was clipped" in suggest(QUIET, clipped=True).notes[-1]


def test_a_run_that_exploded_is_advised_from_the_steps_before(tmp_path):
    norms = [1.0 + 0.01 * (step % 7) for step in range(150)] + [10.0**power for power in range(2, 32)]
    losses = [2.0 - 0.01 * step for step in range(150)] + [10.0**power for power in range(2, 32)]
    (optimizer,) = read(recorded(tmp_path / "a", [[norm] for norm in norms], losses=losses)).optimizers
    advice = suggestion_of(optimizer)
    assert advice.recipe == "global_norm:2.1"  # twice the 99th percentile of the sound ones
    assert advice.notes[0] == "The norms exploded: this rests on the steps before 150 alone."


def test_a_run_that_exploded_at_once_is_advised_from_its_first_norm(tmp_path):
    grows = [10.0**power for power in range(30)]
    (optimizer,) = read(recorded(tmp_path / "a", [[norm] for norm in grows], losses=grows)).optimizers
    assert suggestion_of(optimizer).recipe == "global_norm:1.0"
    assert "the first step alone" in suggestion_of(optimizer).notes[0]
