"""Thresholds that do not fit the norms, and the same trainings with thresholds that do."""

from __future__ import annotations

import math
import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from gradclip.diagnosis.findings.threshold.never_clipping import _hurt, _usual
from gradclip.runs import Event, Run, RunWriter, StepRow, TensorInfo
from tests.diagnosis.runs import CLIP
from tests.diagnosis.support import findings, found
from tests.diagnosis.trainings import he, net, trained

FAMILY = "threshold"


def relu_net():
    return net(3, nn.ReLU, start=he)


def clip_to(threshold, name="clip_grad_norm_", **options):
    """Look the function up when it is called: only then it is the one that is watched."""
    return lambda model: getattr(nn.utils, name)(model.parameters(), threshold, **options)


def flat(step):
    return 2.0 + 0.1 * math.sin(step)


def falling(step):
    return 0.5 + 2.0 * math.exp(-step / 60) + 0.1 * math.sin(step)


def learnt(step):
    return 0.05 + 2.0 * math.exp(-step / 30)


def run_of(path, norms, threshold, *, loss=flat, event=CLIP, optimizers=1, every=1, skips=(), **meta):
    """A run with these norms, clipped to a threshold or to one for each step."""
    writer = RunWriter(path, {"title": "run", **meta})
    writer.add_tensors([TensorInfo("w", (2, 2), optimizer=number) for number in range(optimizers)])
    limits = np.broadcast_to(np.asarray(threshold, float), len(norms))
    for number in range(optimizers):
        for step, (norm, limit) in enumerate(zip(norms, limits, strict=True)):
            clipped = None if step % every else bool(norm > limit)
            value = None if loss is None else loss(step)
            writer.add_step(
                StepRow(
                    step=step, optimizer=number, loss=value, norm=float(norm), threshold=None if step % every else float(limit),
                    clipped=clipped, skipped=step in skips, clipped_norm=float(min(norm, limit)),
                )
            )  # fmt: skip
            parts = [Event("backward"), *([event._replace(optimizer=number)] if event else []), Event("step", number)]
            writer.add_events(step, number, parts)
    writer.close()
    assert writer.failed is None
    return path


def told(path):
    return [f"{one.name} {one.symptom.severity} {one.symptom.confidence}" for one in findings(path, FAMILY)]


def noise(count, spread, seed=0):
    """Lognormal norms around 1."""
    return np.exp(spread * np.random.default_rng(seed).standard_normal(count))


# --- real trainings -----------------------------------------------------------------------------------------------------


def test_a_threshold_far_too_low_stalls_the_training(tmp_path):
    path = trained(tmp_path, relu_net, clip=clip_to(0.001), steps=150)
    (finding,) = findings(path, FAMILY)
    symptom = finding.symptom
    assert told(path) == ["always-clipping warning possible"]
    assert symptom.sentence.startswith("100% of steps are clipped to 0.001, and the middle one keeps 0.")
    assert symptom.sentence.endswith("while the loss hardly falls.")
    assert 'gradclip.attach(optimizer, "normalize:0.001")' in symptom.fix
    assert 'gradclip.attach(optimizer, "global_norm:' in symptom.fix
    assert "# would clip 0% of steps" in symptom.fix


def test_one_as_low_whose_rate_fits_it_is_normalised_descent_and_a_note(tmp_path):
    path = trained(tmp_path, relu_net, clip=clip_to(0.02), rate=2.0, steps=150)
    assert told(path) == ["always-clipping note likely"]


@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize("threshold", [0.5, 1.0, 5.0, 20.0, math.inf])
def test_usual_thresholds_give_nothing(tmp_path, threshold, adam):
    path = trained(tmp_path, relu_net, clip=clip_to(threshold), adam=adam, rate=2e-3 if adam else 0.05, steps=250)
    assert found(path, FAMILY) == []


@pytest.mark.parametrize(
    "recipe",
    [
        *["normalize:0.001", "normalize:0.001,soft=true", "autoclip:10", "autoclip:1", "trust:0.0001", "auto", "zclip"],
        *["tensor_norm:0.0005", "global_norm:0.001,norm=1", "global_norm:linear(0.002,0.001,100)", "agc:0.0001"],
        *["global_norm:0.001,exclude=group0.0", "value:0.00001", "quantile:0.1,100"],
    ],
)
def test_recipes_that_clip_by_design_or_in_another_unit_give_nothing(tmp_path, recipe):
    assert found(trained(tmp_path, relu_net, recipe=recipe, steps=120), FAMILY) == []


def test_the_same_constant_is_seen_through_an_attachment(tmp_path):
    path = trained(tmp_path, relu_net, recipe="global_norm:0.001", steps=120)
    assert told(path) == ["always-clipping warning possible"]


@pytest.mark.parametrize(
    "clip",
    [
        clip_to(1e-5, "clip_grad_value_"),
        clip_to(0.01, norm_type=1.0),
        lambda model: nn.utils.clip_grad_norm_(list(model.parameters())[:2], 0.001),
        lambda model: [nn.utils.clip_grad_norm_([parameter], 0.001) for parameter in model.parameters()],
        lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.001 * random.uniform(1, 2)),
        None,
    ],
)
def test_other_ways_to_clip_and_none_give_nothing(tmp_path, clip):
    assert found(trained(tmp_path, relu_net, clip=clip, steps=120), FAMILY) == []


def spiking(step):
    return 60.0 if step % 40 == 39 else 1.0


def test_spikes_that_a_threshold_lets_through(tmp_path):
    path = trained(tmp_path, relu_net, clip=clip_to(5000.0), noisy=spiking, steps=250, rate=0.1)
    (finding,) = findings(path, FAMILY)
    assert finding.name == "never-clipping"
    assert finding.symptom.sentence.startswith("The threshold 5,000 never acted in 250 steps, though")
    assert "# would clip" in finding.symptom.fix


def test_the_same_spikes_and_a_threshold_that_stops_them(tmp_path):
    assert found(trained(tmp_path, relu_net, clip=clip_to(3.0), noisy=spiking, steps=250, rate=0.1), FAMILY) == []


def uneven(step):
    return math.exp(1.0 * math.sin(12.9898 * step * step))


def test_a_threshold_among_norms_that_are_spread_wide(tmp_path):
    path = trained(tmp_path, relu_net, clip=clip_to(2.0), noisy=uneven, steps=250, rate=0.002)
    (finding,) = findings(path, FAMILY)
    assert finding.name == "threshold-in-the-noise"
    assert finding.symptom.severity == "note"
    assert "# would clip" in finding.symptom.fix


def test_the_same_norms_and_a_guard_above_them(tmp_path):
    assert found(trained(tmp_path, relu_net, clip=clip_to(10.0), noisy=uneven, steps=250, rate=0.002), FAMILY) == []


def test_norms_close_to_the_threshold_give_nothing(tmp_path):
    measured = trained(tmp_path / "a", relu_net, steps=250, rate=0.002)
    with Run.open(measured) as run:
        middle = float(np.median(run.steps().norm[125:]))
    assert found(trained(tmp_path / "b", relu_net, clip=clip_to(middle), steps=250, rate=0.002), FAMILY) == []


def test_single_batches_of_a_net_that_has_learnt_are_no_spikes(tmp_path):
    path = trained(tmp_path, relu_net, adam=True, rate=5e-3, steps=500, clip=clip_to(30.0))
    with Run.open(path) as run:
        norms = run.steps().norm
    assert (norms[250:] > 10 * np.median(norms[250:])).sum() >= 3
    assert found(path, FAMILY) == []


def test_a_target_that_never_stops_moving_is_healthy(tmp_path):
    """As in reinforcement learning: the loss never falls, and norms are noisy."""

    def moving(model, step):
        if step % 20 == 0:
            with torch.no_grad():
                model[-1].weight.add_(0.5 * torch.randn_like(model[-1].weight))

    assert found(trained(tmp_path, relu_net, clip=clip_to(2.0), before=moving, steps=300), FAMILY) == []


# --- always: the limits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norms", "options", "expected"),
    [
        ([11.0] * 100, {}, ["always-clipping warning possible"]),
        ([11.0] * 99, {}, []),
        ([9.9] * 100, {}, []),
        ([11.0] * 95 + [0.5] * 5, {}, []),  # 90% of the second half
        (([11.0] * 49 + [0.5]) * 2, {}, ["always-clipping warning possible"]),
        (([11.0] * 46 + [0.5] * 4) * 2, {}, []),
        ([99.0] * 60 + [3.0] * 60, {}, []),
        ([11.0] * 100, {"loss": falling}, ["always-clipping note likely"]),
        ([11.0] * 100, {"loss": None}, ["always-clipping note likely"]),
        ([11.0] * 100, {"loss": math.sin}, ["always-clipping note likely"]),
        ([11.0] * 100, {"loss": lambda step: 0.5 + math.sin(step * math.pi / 5)}, ["always-clipping note likely"]),
        ([11.0] * 100, {"loss": lambda step: 20.0 + math.sin(step)}, ["always-clipping warning possible"]),
        ([11.0] * 100, {"loss": lambda step: math.nan}, ["always-clipping note likely"]),
        ([11.0] * 100, {"optimizers": 2}, ["always-clipping note likely"] * 2),
        ([11.0] * 200, {"every": 2}, []),
        ([11.0] * 120, {"skips": range(60)}, []),
        ([math.nan] * 200, {}, []),
        ([11.0] * 100, {"event": CLIP._replace(reached=1, owned=2)}, []),
        ([11.0] * 100, {"event": CLIP._replace(norm=math.inf)}, []),
        ([11.0] * 100, {"event": Event("clip", 0, "clip_grad_value_")}, []),
        ([11.0] * 100, {"event": Event("clip", 0, "my own clipping")}, []),
        ([11.0] * 100, {"event": Event("clip", 0, "global_norm:1.0")}, ["always-clipping warning possible"]),
        ([11.0] * 100, {"event": None, "clip": "global_norm:1.0"}, ["always-clipping warning possible"]),
        ([11.0] * 100, {"event": None, "clip": "normalize:1.0"}, []),
    ],
)
def test_where_clipping_is_always(tmp_path, norms, options, expected):
    assert told(run_of(tmp_path / "a.gradclip", norms, 1.0, **options)) == expected


# --- never: the limits ------------------------------------------------------------------------------------------------------


def spikes(height, count=3, steps=250):
    norms = np.ones(steps)
    norms[60 : 60 + 30 * count : 30] = height
    return norms


@pytest.mark.parametrize(
    ("norms", "threshold", "options", "expected"),
    [
        (spikes(11), 50, {}, ["never-clipping note possible"]),
        (spikes(9.9), 50, {}, []),
        (spikes(11, 2), 50, {}, []),
        (spikes(11, steps=199), 50, {}, []),
        (spikes(11), 10.5, {}, []),
        (spikes(11), 50, {"loss": learnt}, []),
        (spikes(11), 50, {"loss": None}, ["never-clipping note possible"]),
        (spikes(11), 1e9, {}, ["never-clipping note possible"]),
        (np.ones(250), 50, {}, []),
        (np.ones(250), 99, {}, []),
        (np.ones(250), 101, {}, ["never-clipping note possible"]),
        (np.ones(250), 1.1e6, {}, []),
        (np.zeros(250), 1.0, {}, []),
        (np.r_[np.full(60, 50.0), spikes(11)], 100, {}, []),
        (np.geomspace(1, 1000, 250), 5000, {}, []),
        (np.geomspace(1000, 1, 250), 5000, {}, []),
    ],
)
def test_where_clipping_is_never(tmp_path, norms, threshold, options, expected):
    assert told(run_of(tmp_path / "a.gradclip", norms, threshold, **options)) == expected


def hurt(rise):
    """A loss that rises after each spike and comes back."""
    return lambda step: flat(step) + (rise if any(at < step < at + 12 for at in (60, 90, 120)) else 0.0)


def test_it_is_a_warning_where_the_loss_rises_after_the_spikes(tmp_path):
    assert told(run_of(tmp_path / "a.gradclip", spikes(11), 50, loss=hurt(1.0))) == ["never-clipping warning likely"]
    assert told(run_of(tmp_path / "b.gradclip", spikes(11), 50, loss=hurt(0.01))) == ["never-clipping note possible"]


def test_what_is_usual_never_falls_and_a_rise_is_held_against_all_others():
    norms = np.r_[np.full(50, 4.0), np.full(50, 1.0), np.full(70, 9.0)]
    assert _usual(norms).tolist() == [4.0] * 100 + [9.0] * 70
    up = np.r_[np.zeros(50), np.ones(50)]  # rises once
    assert _hurt(up, np.array([49]))
    assert not _hurt(up, np.array([20]))
    assert not _hurt(-up, np.array([49]))
    assert not _hurt(np.full(100, math.nan), np.array([49]))
    assert not _hurt(up[:8], np.array([4]))


# --- in the noise: the limits ----------------------------------------------------------------------------------------------


def two(low, high, share, count=400):
    """Norms of two kinds, taking turns, so many of them high."""
    return np.where(np.arange(count) * share % 1 < share - 1e-9, high, low)


@pytest.mark.parametrize(
    ("norms", "options", "expected"),
    [
        (noise(400, 0.7), {}, ["threshold-in-the-noise warning possible"]),
        (noise(400, 0.7), {"loss": falling}, ["threshold-in-the-noise note possible"]),
        (noise(400, 0.7), {"loss": None}, ["threshold-in-the-noise note possible"]),
        (noise(400, 0.7), {"loss": learnt}, []),
        (noise(400, 0.3), {}, []),
        (noise(199, 0.7), {}, []),
        (two(0.9, 3.0, 0.25), {}, ["threshold-in-the-noise warning possible"]),
        (two(0.9, 3.0, 0.125), {}, []),
        (two(0.5, 1.5, 0.5), {}, ["threshold-in-the-noise warning possible"]),
        (two(0.5, 1.4, 0.5), {"loss": flat}, ["threshold-in-the-noise warning possible"]),
        (two(0.5, 1.37, 0.5), {}, []),
        (two(0.8, 30.0, 0.25), {"loss": falling}, []),  # what is cut are spikes
        (np.sort(noise(400, 0.7)), {}, []),
        (np.r_[np.full(300, 0.5), np.full(100, 3.0)], {}, []),
    ],
)
def test_where_a_threshold_is_in_the_noise(tmp_path, norms, options, expected):
    assert told(run_of(tmp_path / "a.gradclip", norms, 1.0, **options)) == expected


# --- any of them ------------------------------------------------------------------------------------------------------------


def test_the_place_of_the_call_is_told(tmp_path):
    event = CLIP._replace(place="train.py:31")
    (finding,) = findings(run_of(tmp_path / "a.gradclip", [11.0] * 100, 1.0, event=event), FAMILY)
    assert finding.symptom.where == "train.py:31"


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, ["threshold-zero"]), (-1.0, ["threshold-negative"])])
def test_thresholds_that_cannot_be_meant_are_told_alone(tmp_path, threshold, expected):
    assert found(run_of(tmp_path / "a.gradclip", [30.0] * 300, threshold), FAMILY) == expected


@pytest.mark.parametrize("threshold", [math.nan, math.inf, [1.0] * 150 + [2.0] * 150])
def test_thresholds_that_are_none_or_more_than_one_say_nothing(tmp_path, threshold):
    run = partial(run_of, norms=[30.0] * 300, threshold=threshold)
    assert found(run(tmp_path / "a.gradclip"), FAMILY) == []
