"""Steps too long or too short for their weights, and learning rates that jump."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gradclip.diagnosis.findings.step_size.update_too_large import LARGE, SAMPLES
from gradclip.diagnosis.findings.step_size.update_too_small import SMALL
from gradclip.diagnosis.signals.learning_rate_jumps import ABOVE, LEAST, TIMES
from tests.diagnosis.support import findings, found, recorded_training
from tests.diagnosis.synthetic import falling, numbers, steady
from tests.diagnosis.test_explosion import classifier, train

LARGE_UPDATE, SMALL_UPDATE, JUMP = "update-too-large", "update-too-small", "learning-rate-spike"
FLAT = np.tile([1.9, 2.0, 2.1], 100)


def only(path):
    (finding,) = findings(path, "step_size")
    return finding


def recorded_blobs(folder, make, schedule=None, steps=300):
    model = classifier(2, 16, 16, 4)
    optimizer = make(model.parameters())
    scheduler = None if schedule is None else schedule(optimizer)

    def after(step, model):
        if scheduler is not None and step:
            scheduler.step()

    return recorded_training(folder, lambda: train(model, optimizer, steps, disturb=after), optimizer)


def adam(lr):
    return lambda parameters: torch.optim.Adam(parameters, lr)


def sgd(lr, **options):
    return lambda parameters: torch.optim.SGD(parameters, lr, **options)


SCHEDULES = {
    "constant": None,
    "warm-up": lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.001, 1.0, 60),
    "a warm-up in one step": lambda o: torch.optim.lr_scheduler.ConstantLR(o, 0.1, 60),
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 300),
    "warm restarts": lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 100),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.05, 300),
    "steps down": lambda o: torch.optim.lr_scheduler.StepLR(o, 100, 0.1),
}


MAKERS = {"Adam": adam(1e-2), "SGD": sgd(0.1), "momentum": sgd(0.05, momentum=0.9)}
SOUND = [("Adam", name) for name in SCHEDULES] + [("SGD", "constant"), ("momentum", "warm restarts"), ("momentum", "one cycle")]


@pytest.mark.parametrize(("make", "schedule"), SOUND)
def test_sound_runs(tmp_path, make, schedule):
    assert found(recorded_blobs(tmp_path, MAKERS[make], SCHEDULES[schedule]), "step_size") == []


@pytest.mark.parametrize(
    ("make", "name", "better"),
    [(adam(3.0), LARGE_UPDATE, 1e-3), (adam(1e-7), SMALL_UPDATE, 1e-3), (sgd(1e-7), SMALL_UPDATE, 1e-2)],
    ids=["Adam, large", "Adam, small", "SGD, small"],
)
def test_a_learning_rate_that_is_wrong_by_far(tmp_path, make, name, better):
    finding = only(recorded_blobs(tmp_path, make))
    assert (finding.name, finding.symptom.severity) == (name, "warning")
    told = float(finding.symptom.fix.split('"] = ')[1].split()[0])
    assert better / 11 <= told <= better * 11


@pytest.mark.parametrize("make", [adam(5e-3), sgd(0.1)], ids=["Adam", "SGD"])
def test_a_rate_that_jumps_a_hundredfold(tmp_path, make):
    finding = only(
        recorded_blobs(tmp_path, make, lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda s: 500 if s > 150 else 1))
    )
    symptom = finding.symptom
    assert (finding.name, symptom.severity, symptom.evidence[0].step) == (JUMP, "error", 151)
    assert "LinearLR" in symptom.fix


# --- update-too-large --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "expected"), [(1.1 * LARGE, [LARGE_UPDATE]), (0.9 * LARGE, [])])
def test_the_largest_ratio(tmp_path, ratio, expected):
    assert found(numbers(tmp_path / "a.gradclip", steady(300), FLAT, ratios=ratio), "step_size") == expected


def test_large_steps_that_help(tmp_path):
    assert found(numbers(tmp_path / "a.gradclip", steady(300), falling(300), ratios=0.5), "step_size") == []


@pytest.mark.parametrize(("large", "expected"), [(15, [LARGE_UPDATE]), (14, []), (SAMPLES - 1, [])])
def test_in_how_many_samples(tmp_path, large, expected):
    ratios = [[0.2, 0.2]] * large + [[1e-3, 1e-3]] * (30 - large)
    assert found(numbers(tmp_path / "a.gradclip", steady(300), FLAT, ratios=ratios), "step_size") == expected


@pytest.mark.parametrize(("ratio", "expected"), [(1.1, [LARGE_UPDATE]), (0.9, [])])
def test_one_step_that_replaces_the_weights(tmp_path, ratio, expected):
    ratios = [[ratio, ratio]] + [[1e-3, 1e-3]] * 29
    assert found(numbers(tmp_path / "a.gradclip", steady(300), FLAT, ratios=ratios), "step_size") == expected


def test_biases_and_layers_that_begin_at_zero_do_not_count(tmp_path):
    names = ("a.weight", "a.bias", "b.weight", "b.bias", "norm.weight", "norm.bias")
    ratios = [[1e-3, 5.0, np.inf if sample == 0 else 1e-3, 5.0, 5.0, 5.0] for sample in range(30)]
    assert found(numbers(tmp_path / "a.gradclip", steady(300), FLAT, ratios=ratios, names=names), "step_size") == []


def test_a_run_that_exploded_is_told_as_that(tmp_path):
    norms, losses = steady(300), FLAT.copy()
    norms[150], losses[151:] = 1000.0, 50.0
    assert found(numbers(tmp_path / "a.gradclip", norms, losses, ratios=0.5), "step_size") == []


# --- update-too-small --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "expected"), [(0.9 * SMALL, [SMALL_UPDATE]), (1.1 * SMALL, [])])
def test_the_smallest_ratio(tmp_path, ratio, expected):
    assert found(numbers(tmp_path / "a.gradclip", steady(300), FLAT, ratios=ratio), "step_size") == expected


@pytest.mark.parametrize(
    ("norms", "losses", "changes"),
    [
        (steady(300), falling(300), {}),
        (steady(300) * np.linspace(1, 0.1, 300), FLAT, {}),
        (steady(300, 1e-9), FLAT, {}),
        (steady(300), FLAT, {"rates": np.linspace(1e-9, 1e-6, 300) ** 2}),
        (steady(300), FLAT, {"skipped": range(300)}),
        (steady(300), None, {}),
        (steady(190), FLAT[:190], {}),
        (steady(300), FLAT, {"ratios": [[1e-3, 1e-3]] * 4 + [[1e-8, 1e-8]] * 26}),
        (steady(300), FLAT, {"ratios": None}),
    ],
    ids=[
        "the loss falls", "it converged", "no gradient", "warming up", "skipped", "no loss", "too few", "a tail", "no ratios",
    ],
)  # fmt: skip
def test_small_steps_that_are_no_fault(tmp_path, norms, losses, changes):
    assert found(numbers(tmp_path / "a.gradclip", norms, losses, **{"ratios": 1e-7, **changes}), "step_size") == []


def test_frozen_tensors_do_not_count(tmp_path):
    rows = {step: [-1.0, -1.0, 1.0] for step in range(300)}
    names, ratios = ("a.weight", "b.weight", "c.weight"), [[0.0, 0.0, 1e-3]] * 30
    path = numbers(tmp_path / "a.gradclip", steady(300), FLAT, ratios=ratios, names=names, rows=rows)
    assert found(path, "step_size") == []


# --- learning-rate-spike -----------------------------------------------------------------------------------------------


def jumped(before, after, at=150, steps=300, level=20.0):
    losses = falling(steps)
    losses[at + 1 :] = level
    return losses, [before] * at + [after] * (steps - at)


@pytest.mark.parametrize(("times", "expected"), [(1.1, [JUMP]), (0.9, [])])
def test_the_size_of_a_jump(tmp_path, times, expected):
    losses, rates = jumped(0.01, 0.01 * times * TIMES)
    assert found(numbers(tmp_path / "a.gradclip", steady(300), losses, rates=rates), "step_size") == expected


@pytest.mark.parametrize(("times", "expected"), [(1.1, [JUMP]), (0.9, [])])
def test_a_restart_goes_back_to_a_rate_the_run_has_had(tmp_path, times, expected):
    losses, rates = jumped(0.01, 0.1)
    rates[:50] = [0.1 / (times * ABOVE)] * 50
    assert found(numbers(tmp_path / "a.gradclip", steady(300), losses, rates=rates), "step_size") == expected


def test_a_jump_that_the_loss_does_not_mind(tmp_path):
    _, rates = jumped(0.01, 1.0)
    assert found(numbers(tmp_path / "a.gradclip", steady(300), falling(300), rates=rates), "step_size") == []


def test_jumps_at_the_start_and_from_zero(tmp_path):
    for name, rates, at in (("a", jumped(0.01, 1.0, at=LEAST - 1)[1], LEAST - 1), ("b", jumped(0.0, 1.0)[1], 150)):
        losses, _ = jumped(0.0, 1.0, at=at)
        assert found(numbers(tmp_path / f"{name}.gradclip", steady(300), losses, rates=rates), "step_size") == []


def test_the_jump_is_told_and_not_the_explosion_that_follows(tmp_path):
    losses, rates = jumped(0.01, 1.0)
    norms = steady(300)
    norms[150] = 1000.0
    raised, constant = (
        numbers(tmp_path / f"{name}.gradclip", norms, losses, rates=at) for name, at in (("a", rates), ("b", None))
    )
    assert (found(raised, "step_size"), found(raised, "explosion")) == ([JUMP], [])
    assert (found(constant, "step_size"), found(constant, "explosion")) == ([], ["exploding-gradient"])


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 25])
@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_short_and_empty_runs(tmp_path, steps, value):
    path = numbers(tmp_path / "a.gradclip", [value] * steps, [1.0] * steps, ratios=value, rates=[None] * steps)
    assert found(path, "step_size") == []
