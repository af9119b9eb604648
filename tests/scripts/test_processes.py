"""Scripts of several processes: a job is one run with whole norms, others are a run each, and none is passed over."""

from __future__ import annotations

import numpy as np
import pytest

from gradclip.diagnosis.ranking import check
from gradclip.diagnosis.readings.run_data import read_run
from gradclip.runs import Run
from tests.scripts.support import OURS, plain, program, python, watched

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
WATCHED = ["-m", "gradclip", "run", "--no-report"]
STEPS = 4


def same(one, other):
    """Assert that the script itself did and said the same; which process speaks first is left to chance."""
    assert other.code == one.code
    assert sorted(other.stdout.splitlines()) == sorted(one.stdout.splitlines())


def others(done):
    """The runs of processes that another one has started, as it lists them: (what is said in brackets)."""
    return sorted(line.partition("(")[2].rstrip(")") for line in done.said if line.startswith("run ") and "(" in line)


@pytest.mark.parametrize("way", ["spawn", "fork", "forkserver", "hogwild"])
def test_processes_that_train_by_themselves_are_a_run_each(way, tmp_path):
    words = program("processes", way)
    done = watched(words, tmp_path)
    assert done.code == 0, done.stderr
    if way == "hogwild":
        same(plain(words, tmp_path), done)
    assert done.said[0] == "this process did not train; those that it started did:"
    assert others(done) == [f"{STEPS} steps, finished", f"{STEPS + 1} steps, finished"]
    lengths = []
    for path in done.runs:
        with Run.open(path) as run:
            assert run.status == "finished"
            assert run.ranks is None
            assert np.isfinite(run.steps().norm).all()
            lengths.append(len(run.steps()))
    assert sorted(lengths) == [STEPS, STEPS + 1]


@pytest.mark.parametrize("way", ["job", "forked job"])
def test_processes_with_a_process_group_are_one_run(way, tmp_path):
    done = watched(program("processes", way), tmp_path)
    assert done.code == 0, done.stderr
    assert f"{STEPS} steps recorded, finished" in done.said
    assert "ranks   2, joined" in done.said
    assert others(done) == [f"2 ranks, {STEPS} steps, finished"]
    with done.open() as run:
        assert run.ranks.size == 2
        assert run.ranks.problems == ()
        assert run.ranks.disagreements == ()
        assert len(run.steps()) == STEPS


def test_a_process_that_exits_with_a_code_has_crashed(tmp_path):
    done = watched(program("processes", "dies"), tmp_path)
    assert done.stdout == "[0, 3]\n"
    assert others(done) == [f"{STEPS} steps, finished", f"{STEPS + 1} steps, crashed"]


def test_a_parent_that_trains_as_well_lists_the_others_behind_its_own(tmp_path):
    done = watched(program("processes", "too"), tmp_path)
    assert done.said[0] == f"{STEPS + 2} steps recorded, finished"
    assert others(done) == [f"{STEPS} steps, finished", f"{STEPS + 1} steps, finished"]
    assert len(done.runs) == 3


def test_processes_that_cannot_be_seen_are_named_as_the_reason(tmp_path):
    done = watched(program("processes", "subprocess"), tmp_path)
    assert done.stdout == "0\n"
    assert done.runs == []
    said = " ".join(done.said)
    assert "NOTHING WAS RECORDED" in said
    assert "started 1 process of Python by subprocess" in said
    assert "autograd.grad" not in said


def test_ranks_of_torchrun_are_one_run_with_the_ranks_compared(tmp_path):
    usual = python(*TORCHRUN, *program("ranks"), cwd=tmp_path)
    done = python(*TORCHRUN, *WATCHED, *program("ranks"), cwd=tmp_path)
    same(usual, done)
    assert done.stderr.count(f"{OURS}4 steps recorded") == 1
    with done.open() as run, Run.open(next((tmp_path / "runs" / "ranks").glob("*/1.gradclip"))) as other:
        assert run.ranks.size == 2
        assert run.ranks.problems == run.ranks.disagreements == ()
        np.testing.assert_allclose(run.steps().norm, other.steps().norm, rtol=1e-6)
        assert not np.allclose(run.steps().loss, other.steps().loss)
        assert [tensor.name for tensor in run.tensors] == ["weight", "bias"]
    again = python("-m", "gradclip", "replay", "--yes", cwd=tmp_path)
    assert again.code == 2
    assert "several processes" in again.stderr


@pytest.mark.parametrize("inside", [False, True], ids=["torchrun starts gradclip", "gradclip starts torchrun"])
def test_shards_are_joined_to_the_norms_of_the_whole_model(inside, tmp_path):
    words = [*WATCHED, *TORCHRUN, *program("sharded")] if inside else [*TORCHRUN, *WATCHED, *program("sharded")]
    done = python(*words, cwd=tmp_path)
    assert done.code == 0, done.stderr
    truth = np.array(done.truth)
    totals = np.sqrt(np.square(truth).sum(axis=1))
    with done.open() as run:
        assert [tensor.name for tensor in run.tensors] == ["0.weight", "0.bias", "2.weight", "2.bias"]
        assert [tensor.shape for tensor in run.tensors] == [(5, 7), (5,), (3, 5), (3,)]
        np.testing.assert_allclose(run.tensor_matrix("norm").matrix, truth, rtol=1e-5)
        np.testing.assert_allclose(run.steps().norm, totals, rtol=1e-5)
        np.testing.assert_allclose(run.steps().clipped_norm, np.minimum(totals, 0.5), rtol=1e-4)
        assert run.ranks.problems == ()
        assert run.optimizers == (0,)
    with Run.open(done.runs[0], alone=True) as rank:
        assert (rank.steps().norm < 0.99 * totals).all()  # a shard's own norm is another one
    said = [line for line in done.said if line.startswith("norm")]
    assert said == [f"norm    {totals[-1]:.4g} at the end, at most {totals.max():.4g}"]


def test_a_rank_that_dies_is_said_and_its_shards_are_not_left_out_of_a_norm(tmp_path):
    done = python(*TORCHRUN, *WATCHED, *program("sharded", "4"), cwd=tmp_path)
    assert done.code != 0
    with done.open() as run:
        steps = run.steps()
        assert len(steps) >= 3
        known = ~steps.missing["norm"]
        problems = run.ranks.problems
        data = read_run(run)
        with Run.open(next((tmp_path / "runs" / "ranks").glob("*/1.gradclip"))) as other:
            theirs = len(other.steps())
        with Run.open(done.runs[0], alone=True) as rank:
            assert (steps.norm[known] > rank.steps().norm[: len(steps)][known]).all()
        assert known.sum() == min(theirs, len(steps)) > 0
        assert any("rank 1 of 2 was killed after" in problem for problem in problems)
        check(data)
