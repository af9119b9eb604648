"""One tensor that makes the whole norm, and gradients that clipping puts below the optimizer's eps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import gradclip
from gradclip.diagnosis.advice.optimizer_suggestion import suggestion_of
from gradclip.diagnosis.ranking import check
from gradclip.diagnosis.readings.optimizer_settings import adaptive_eps, is_adaptive
from gradclip.diagnosis.readings.run_data import read_run
from gradclip.diagnosis.signals.dominant_layer import dominant_layer_of
from gradclip.runs import Run
from tests.diagnosis.runs import read, recorded
from tests.diagnosis.support import recorded_training

STEPS = 150


def gated(folder, size, *, optimizer=torch.optim.SGD, limit=1.0, steps=STEPS, clip=None, **options):
    """Train a net on noisy sines; ``gate`` has a gradient of ``size``, and no part in the loss."""

    def train():
        net = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1))
        net.gate = nn.Parameter(torch.zeros(1))
        stepper = optimizer(net.parameters(), **{"lr": 1e-2, **options})
        if clip:
            gradclip.attach(stepper, clip)
        for _ in range(steps):
            x = torch.randn(64, 4)
            loss = (net(x) - x.sum(1, keepdim=True).sin()).square().mean()
            loss = loss + (size * torch.randn(1) * (net.gate - net.gate.detach())).sum()
            stepper.zero_grad()
            loss.backward()
            if limit:
                nn.utils.clip_grad_norm_(net.parameters(), limit)
            stepper.step()
        losses.append(loss.item())

    losses = []
    return recorded_training(folder, train), losses[0]


def data(path):
    with Run.open(path) as run:
        return read_run(run)


def told(path):
    return [f"{one.name} {one.symptom.severity}" for one in check(data(path))]


def test_a_tensor_that_makes_the_norm_is_named_and_what_follows_stands_behind_it(tmp_path):
    path, stalled = gated(tmp_path / "a", 1e10, optimizer=torch.optim.AdamW)
    first, second, third = check(data(path))
    assert first.name == "one-tensor-makes-the-norm"
    assert {second.name, third.name} == {"clipped-under-eps", "always-clipping"}
    assert first.symptom.sentence.startswith("gate is nearly all of the gradient norm (the other tensors together are ")
    assert first.symptom.evidence[0].tensor == "gate"
    assert 'gradclip.attach(optimizer, "tensor_norm:' in first.symptom.fix
    assert "exclude=gate" in first.symptom.fix
    assert {second.symptom.fix, third.symptom.fix} == {
        "# mend one-tensor-makes-the-norm first: this may be nothing but its effect"
    }
    recipe = suggestion_of(data(path).optimizers[0]).recipe
    _, helped = gated(tmp_path / "b", 1e10, optimizer=torch.optim.AdamW, limit=None, clip=recipe)
    _, without = gated(tmp_path / "c", 0.0, optimizer=torch.optim.AdamW)
    assert stalled > 1.5 * helped  # what is advised helps, as much as a net without the gate
    assert helped == pytest.approx(without, rel=0.05)


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        (1e6, {}, "one-tensor-makes-the-norm warning"),
        (1.0, {}, None),
        (1e6, {"limit": 1e9}, None),  # nothing is cut
        (1e6, {"limit": None}, None),
        (1e6, {"steps": 90}, None),
    ],
)
def test_where_a_tensor_makes_the_norm(tmp_path, size, options, expected):
    names = [one for one in told(gated(tmp_path, size, **options)[0]) if one.startswith("one-tensor")]
    assert names == ([expected] if expected else [])


def test_a_tensor_is_not_blamed_for_having_many_elements(tmp_path):
    rows = [[100.0, 0.9, 0.2]] * 200
    run = read(recorded(tmp_path / "a", rows, threshold=1.0, losses=[1.0] * 200))
    (optimizer,) = run.optimizers
    blamed = [one.name for one in check(run)]
    assert "one-tensor-makes-the-norm" in blamed
    first, *others = optimizer.tensor_infos
    large = replace(optimizer, tensor_infos=(replace(first, numel=40_000), *others))
    assert "one-tensor-makes-the-norm" not in [one.name for one in check(replace(run, optimizers=(large,)))]


def test_the_threshold_advised_is_that_of_the_other_tensors(tmp_path):
    random = np.random.default_rng(0)
    rows = random.uniform(0.9, 1.1, (400, 4))
    rows[:, 1] = 1e10 * np.exp(random.standard_normal(400))
    (optimizer,) = read(recorded(tmp_path / "a", rows.tolist())).optimizers
    advice = suggestion_of(optimizer)
    assert [choice.recipe for choice in advice.choices] == [
        "tensor_norm:2.2"
    ]  # twice the 99th percentile of the largest of them
    assert advice.notes[0].startswith("w1 is nearly all of the norm")


@pytest.mark.parametrize(("others", "dominated"), [(0.99, True), (1.01, False), (0.0, False)])
def test_how_little_the_others_may_be(tmp_path, others, dominated):
    """At a hundredth of the whole, and only where they have a gradient at all."""
    (optimizer,) = read(recorded(tmp_path / "a", [[100.0, others]] * 40)).optimizers
    found = dominant_layer_of(optimizer.layers)
    assert (found is not None) is dominated
    if found is not None:
        assert found.name == "w0"
        assert found.left == pytest.approx(others / np.hypot(100.0, others), rel=1e-6)
        assert len(found.rows) == 20


@pytest.mark.parametrize(
    ("eps", "limit", "expected"),
    [
        (1e-3, 1e-4, True),
        (1e-3, 1.0, False),
        (1e-8, 1e-4, False),  # a constant factor cancels
        (1e2, 1e-4, False),  # below eps without clipping, too: that was meant
    ],
)
def test_clipped_under_eps(tmp_path, eps, limit, expected):
    path, _ = gated(tmp_path, 0.0, optimizer=torch.optim.Adam, limit=limit, eps=eps)
    assert ("clipped-under-eps warning" in told(path)) is expected


def test_sgd_has_no_eps(tmp_path):
    assert "clipped-under-eps warning" not in told(gated(tmp_path, 0.0, limit=1e-12)[0])


def test_the_size_below_eps_is_that_of_the_clipped_gradient(tmp_path):
    def train():
        p, q = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(1))
        stepper = torch.optim.Adam([{"params": [p], "eps": 1e-4}, {"params": [q], "eps": 1e-12}])
        for _ in range(40):
            stepper.zero_grad()
            (3e3 * p.sum() + 8e3 * q.sum()).backward()  # a norm of 1e4
            nn.utils.clip_grad_norm_([p, q], 1e-5)
            stepper.step()

    run = data(recorded_training(tmp_path, train))
    (finding,) = [one for one in check(run) if one.name == "clipped-under-eps"]
    size, *_ = finding.symptom.evidence
    assert size.value == pytest.approx(3e3 * 1e-5 / 1e4, rel=1e-4)
    assert (size.limit, size.tensor) == (1e-4, run.optimizers[0].tensor_infos[0].name)


def test_the_learning_rate_is_left_alone_where_a_factor_cancels(tmp_path):
    options = {"limit": 1e-3, "steps": 120}
    (adam,) = [one for one in check(data(gated(tmp_path / "a", 0.0, optimizer=torch.optim.Adam, **options)[0]))]
    (sgd,) = [one for one in check(data(gated(tmp_path / "b", 0.0, **options)[0]))]
    assert adam.name == sgd.name == "always-clipping"
    assert "leave the learning rate" in adam.symptom.fix
    assert "lr" not in adam.symptom.fix.replace("learning", "")
    assert 'group["lr"] *=' in sgd.symptom.fix


@pytest.mark.parametrize(
    ("optimizers", "adaptive", "eps"),
    [
        ({"0": {"class": "Adam", "groups": [{"eps": 1e-8, "betas": [0.9, 0.99]}]}}, True, 1e-8),
        ({"0": {"class": "RMSprop", "groups": [{"eps": 1e-6}]}}, True, 1e-6),
        ({"0": {"class": "SGD", "groups": [{}]}}, False, np.nan),
        ({"0": {"class": "Lion", "groups": [{"betas": [0.9, 0.99]}]}}, False, np.nan),
        ({"0": {"class": "Adafactor", "groups": [{"eps": [None, 1e-3]}]}}, False, np.nan),
        ({"0": {"class": "Adam", "groups": [{"eps": None, "betas": None}]}}, True, np.nan),
        ({"1": {"class": "Adam", "groups": []}}, None, np.nan),
        ({"0": []}, None, np.nan),
        ({"0": {"class": "Adam", "groups": 3}}, False, np.nan),
        ([], None, np.nan),
        (None, None, np.nan),
    ],
)
def test_what_a_run_file_may_say_of_its_optimizer(tmp_path, optimizers, adaptive, eps):
    run = read(recorded(tmp_path / "a", [[1.0, 2.0]] * 3, optimizers=optimizers))
    (optimizer,) = run.optimizers
    assert is_adaptive(run, optimizer) is adaptive
    np.testing.assert_array_equal(adaptive_eps(run, optimizer), [eps, eps])


def test_an_optimizer_may_hold_what_it_likes(tmp_path):
    class Strange(torch.optim.SGD):
        def __init__(self, parameters, **options):
            super().__init__(parameters, **options)
            self.param_groups[0].update(eps="small", betas=(torch.tensor(0.9), 0.99))

    path, _ = gated(tmp_path, 0.0, optimizer=Strange, steps=3)
    with Run.open(path) as run:
        assert run.meta["optimizers"] == {"0": {"class": "Strange", "groups": [{"eps": None, "betas": [None, 0.99]}]}}
