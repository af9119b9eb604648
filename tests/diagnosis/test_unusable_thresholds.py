"""Thresholds of 0 and below, in trainings that PyTorch itself clips."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradclip.diagnosis.readings.run_data import read_run
from gradclip.runs import Run
from tests.diagnosis.support import findings, found
from tests.diagnosis.trainings import he, net, trained

ONCE = 10


def small_net():
    return net(1, nn.ReLU, start=he)


def clip(threshold, name="clip_grad_norm_"):
    return lambda model: getattr(nn.utils, name)(model.parameters(), threshold)


@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize("threshold", [0, 0.0, torch.tensor(0.0)])
def test_a_threshold_of_zero_is_an_error_and_the_first_thing_told(tmp_path, threshold, adam):
    path = trained(tmp_path, small_net, clip=clip(threshold), adam=adam, steps=40)
    with Run.open(path) as run:
        assert run.steps().clipped_norm.tolist() == [0.0] * 40  # PyTorch did zero them
    first, *rest = findings(path)
    assert (first.name, first.symptom.severity, first.symptom.confidence) == ("threshold-zero", "error", "certain")
    assert first.symptom.sentence.startswith("The threshold of clip_grad_norm_ is 0 at 100% of steps")
    assert (
        first.symptom.where.startswith("test_unusable_thresholds.py:") or "test_unusable_thresholds.py:" in first.symptom.where
    )
    assert 'gradclip.attach(optimizer, "global_norm:' in first.symptom.fix
    assert all(one.symptom.fix.startswith("# mend threshold-zero first") for one in rest)


def test_the_steps_that_a_threshold_of_zero_starves_are_told_as_its_effect(tmp_path):
    first, *rest = findings(trained(tmp_path, small_net, clip=clip(0.0), steps=300))
    assert first.name == "threshold-zero"
    assert [one.name for one in rest] == ["update-too-small"]
    assert rest[0].symptom.fix == "# mend threshold-zero first: this may be nothing but its effect"


def test_a_negative_threshold_turns_gradients_round(tmp_path):
    path = trained(tmp_path, small_net, clip=clip(-1.0), steps=60)
    with Run.open(path) as run:
        losses = run.steps().loss
    assert losses[-10:].mean() > 2 * losses[:10].mean()  # it climbs
    first, *rest = findings(path)
    assert (first.name, first.symptom.severity) == ("threshold-negative", "error")
    assert "is negative (-1) at 100% of steps: every gradient is turned round" in first.symptom.sentence
    assert all(one.symptom.fix.startswith("# mend threshold-negative first") for one in rest)


def test_by_value_it_makes_every_element_the_threshold(tmp_path):
    first, *_ = findings(trained(tmp_path, small_net, clip=clip(-0.5, "clip_grad_value_"), steps=40))
    assert first.symptom.sentence == (
        "The threshold of clip_grad_value_ is negative (-0.5) at 100% of steps: every element becomes -0.5."
    )
    assert "clip_grad_value_(model.parameters(), clip_value)" in first.symptom.fix


def now_and_then(threshold, every):
    calls = iter(range(10_000))
    return lambda model: nn.utils.clip_grad_norm_(model.parameters(), 100.0 if next(calls) % every else threshold)


@pytest.mark.parametrize(
    ("threshold", "every", "expected"),
    [
        (0.0, 1, ["threshold-zero error"]),
        (0.0, 2, ["threshold-zero error"]),
        (0.0, 3, ["threshold-zero warning"]),
        (0.0, 40, []),  # the first step alone
        (-1.0, 40, ["threshold-negative error"]),
    ],
)
def test_how_often_it_has_to_be(tmp_path, threshold, every, expected):
    path = trained(tmp_path, small_net, clip=now_and_then(threshold, every), steps=40)
    assert [f"{one.name} {one.symptom.severity}" for one in findings(path, "threshold")] == expected


def test_gradients_that_are_zero_anyway_lose_nothing(tmp_path):
    def train_nothing(model, step):
        for parameter in model.parameters():
            parameter.grad = None

    path = trained(tmp_path, small_net, noisy=lambda step: 0.0, clip=clip(0.0), before=train_nothing, steps=40)
    assert not {"threshold-zero", "threshold-negative"}.intersection(found(path))


def test_the_class_and_the_eps_of_the_optimizer_are_in_the_run_file(tmp_path):
    with Run.open(trained(tmp_path / "a", small_net, adam=True, steps=2)) as run:
        assert run.meta["optimizers"] == {"0": {"class": "Adam", "groups": [{"eps": 1e-8, "betas": [0.9, 0.999]}]}}
        read_run(run)
    with Run.open(trained(tmp_path / "b", small_net, steps=2)) as run:
        assert run.meta["optimizers"] == {"0": {"class": "SGD", "groups": [{}]}}
