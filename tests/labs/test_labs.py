"""Every lab trains reproducibly, clips to its threshold, and lets the unclipped arm be."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from gradclip.errors import NonFiniteGradientError
from gradclip.labs import LABS, load
from gradclip.labs.lab import UNCLIPPED, Arm
from gradclip.labs.runner import run_arms
from tests.labs.support import runs

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture(params=LABS)
def lab(request):
    return load(request.param)


def test_the_registry_knows_each_lab_by_its_name(lab):
    assert lab.name in LABS
    assert lab.arms == lab.arms_with()


def test_an_unknown_lab_is_a_key_error():
    with pytest.raises(KeyError, match="nothing"):
        load("nothing")


@pytest.fixture(params=[name for name in LABS if name != "cliff"])
def random_lab(request):
    """Nothing is random about the cliff."""
    return load(request.param)


def test_the_same_seed_gives_the_same_numbers_and_another_others(random_lab):
    lab, arm = random_lab, [random_lab.arms[-1]]
    first, second, other = (runs(lab, arm, seed=seed)[0] for seed in (0, 0, 1))
    assert first == second
    assert not set(first.losses) & set(other.losses)


class SameData:
    """Stands in for ``torch.Generator``, with one seed whatever is asked for."""

    generator = torch.Generator

    def manual_seed(self, seed):
        return self.generator().manual_seed(9)


def test_the_seed_sets_the_weights_and_not_only_the_batches(random_lab, monkeypatch):
    monkeypatch.setattr(torch, "Generator", SameData)
    first, other = (runs(random_lab, [random_lab.arms[-1]], steps=1, seed=seed)[0] for seed in (0, 1))
    assert first.losses != other.losses


def test_all_arms_of_a_model_start_from_the_same_weights_and_batches(lab):
    first = {}
    for run in runs(lab, steps=1):
        assert first.setdefault((run.arm.model, run.arm.run), run.losses[0]) == run.losses[0]


def test_norms_after_clipping_are_within_the_threshold(lab):
    clip = "global_norm:0.01"
    clipped = [run for run in runs(lab, lab.arms_with(clip=clip)) if run.arm.clips]
    assert clipped
    for run in clipped:
        assert run.limits == [0.01] * 4
        assert run.clipped == [True] * 4
        assert all(before > 0.01 for before in run.norms)
        assert run.clipped_norms == pytest.approx([0.01] * 4, rel=1e-6)


def test_the_unclipped_arm_is_only_measured(lab):
    (run,) = runs(lab, [replace(lab.arms[0], clip=UNCLIPPED)])
    assert run.norms == run.clipped_norms
    assert not any(run.clipped)
    assert all(math.isinf(limit) for limit in run.limits)


def test_two_processes_give_the_numbers_of_one_and_write_their_files(tmp_path):
    lab = load("lstm")
    assert runs(lab, jobs=2, steps=2, out=tmp_path) == runs(lab, steps=2)
    assert len(list(tmp_path.glob("lab-lstm-*.gradclip"))) == 2


def test_a_run_that_diverges_stops_and_says_so():
    lab = load("lstm")
    (run,) = runs(lab, [Arm("LSTM", 1e20)], steps=50)
    assert len(run.losses) < 50
    assert not math.isfinite(run.losses[-1])
    assert run.note == f"diverged: the loss is {run.losses[-1]} at step {len(run.losses)}"
    assert not math.isfinite(lab.score(run))


def test_a_run_that_its_clipper_stops_keeps_what_it_recorded():
    lab = load("lstm")

    def train(arm, steps, seed):
        yield from lab.train(arm, 2, seed)
        raise NonFiniteGradientError(["w"])

    (run,) = runs(replace(lab, train=train), [lab.arms[0]])
    assert len(run.losses) == 2
    assert run.note == "stopped: non-finite gradient in 'w'"


def test_the_callers_randomness_and_threads_are_left_alone():
    torch.set_num_threads(2)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    try:
        runs(load("lstm"), steps=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert torch.equal(torch.rand(1), expected)


def test_progress_reports_the_end_of_every_arm(tmp_path):
    lab, ticks = load("lstm"), []
    run_arms(lab, lab.arms, steps=3, seed=0, jobs=1, report=ticks.append, out=tmp_path)
    assert [(tick.arm, tick.step) for tick in ticks if tick.done] == [(0, 3), (1, 3)]


def test_arms_that_become_alike_run_once():
    lab = load("charlm")
    arms = lab.arms_with(lr=1.0, clip="agc:0.01")
    assert [arm.name for arm in arms] == [
        "LSTM at lr 1, no clipping", "LSTM at lr 1, agc", "RNN at lr 1, no clipping", "RNN at lr 1, agc",
    ]  # fmt: skip
