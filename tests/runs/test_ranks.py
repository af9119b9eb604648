"""The files of a job read as one run: whole norms of shards, copies counted once, and what is missing said and not made up."""

from __future__ import annotations

import json
import sqlite3
import time

import numpy as np
import pytest

from gradclip.runs import ABSENT, Run, RunWriter, StepRow, TensorInfo, list_runs
from gradclip.runs.export import export
from gradclip.runs.paths import new_rank_path

KEY = "0123456789abcdef"


class Rank:
    """One rank of a made-up job, that writes its file.

    Args:
        shard: into how many shards its tensors are cut, and the number of its own.
    """

    def __init__(self, folder, rank, size, shard=None, names=("a", "b"), key=KEY, **meta):
        path = folder / "job.gradclip" if rank == 0 else new_rank_path(folder, key, rank)
        cut = [{"shards": shard[0], "shard": shard[1], "tensors": list(range(len(names)))}] if shard else []
        job = {"key": key, "rank": rank, "size": size, "began": time.time() - 100}
        self.writer = RunWriter(path, {"job": job, "shards": {"0": cut}, **meta})
        self.writer.add_tensors([TensorInfo(name, (4,)) for name in names])
        self.names = names

    def step(self, step, norms, *, after=None, weights=None, **columns):
        whole = float(np.sqrt(sum(norm**2 for norm in norms if norm != ABSENT)))
        clipped = {} if after is None else {"clipped": True, "clipped_norm": after * whole, "coefficient": after}
        self.writer.add_step(StepRow(step=step, norm=whole, **{**clipped, **columns}))
        self.writer.add_tensor_row(step, 0, "norm", norms)
        if after is not None:
            self.writer.add_tensor_row(step, 0, "clipped_norm", after)
        if weights is not None:
            self.writer.add_tensor_row(step, 0, "weight_norm", weights)

    def close(self, status="finished"):
        self.writer.close(status)


def job(folder, ranks, steps=3):
    """Write a job of which each rank has the norms of its own, at every step the same, and return the path of the run."""
    for rank in ranks:
        for step in range(steps):
            rank.step(step, rank.norms)
        rank.close()
    return folder / "job.gradclip"


def of(rank, *norms):
    rank.norms = norms
    return rank


def test_the_norm_of_a_tensor_is_that_of_all_its_shards(tmp_path):
    ranks = [of(Rank(tmp_path, 0, 2, (2, 0)), 3.0, 0.0), of(Rank(tmp_path, 1, 2, (2, 1)), 4.0, 12.0)]
    with Run.open(job(tmp_path, ranks)) as run:
        np.testing.assert_allclose(run.tensor_matrix("norm").matrix, [[5, 12]] * 3)
        np.testing.assert_allclose(run.steps().norm, [13] * 3)
        assert run.ranks.problems == ()
        assert run.status == "finished"
    with Run.open(tmp_path / "job.gradclip", alone=True) as run:
        np.testing.assert_allclose(run.steps().norm, [3] * 3)


def test_replicas_of_a_shard_count_once(tmp_path):
    shards = [(2, 0), (2, 1), (2, 0), (2, 1)]  # two replicas of two shards
    ranks = [of(Rank(tmp_path, i, 4, shard), 3.0 + i % 2, ABSENT) for i, shard in enumerate(shards)]
    with Run.open(job(tmp_path, ranks)) as run:
        rows = run.tensor_matrix("norm")
        np.testing.assert_allclose(rows.matrix[:, 0], [5] * 3)
        assert rows.missing[:, 1].all()
        np.testing.assert_allclose(run.steps().norm, [5] * 3)


def test_clipping_skips_weights_and_nan_are_those_of_the_whole(tmp_path):
    one, other = Rank(tmp_path, 0, 2, (2, 0)), Rank(tmp_path, 1, 2, (2, 1))
    one.step(0, [3.0, 0.0], after=0.5, weights=[6.0, 0.0], clipped=False)
    other.step(0, [4.0, 0.0], after=0.5, weights=[8.0, 0.0])
    one.step(1, [3.0, 1.0], skipped=True)
    other.step(1, [float("nan"), 1.0], skipped=True)
    one.close()
    other.close()
    with Run.open(tmp_path / "job.gradclip") as run:
        steps = run.steps()
        assert (steps.norm[0], steps.clipped_norm[0], steps.coefficient[0], steps.weight_norm[0]) == (5.0, 2.5, 0.5, 10.0)
        assert steps.clipped.tolist() == [True, False]
        assert steps.missing["clipped"].tolist() == [False, True]
        assert np.isnan(steps.norm[1])
        assert not steps.missing["norm"][1]
        assert steps.nonfinite.tolist() == [0, 1]
        assert steps.clipped_norm[1] == 0.0
        np.testing.assert_allclose(run.tensor_matrix("clipped_norm").matrix, [[2.5, 0]])
        np.testing.assert_allclose(run.tensor_matrix("weight_norm").matrix, [[10, 0]])


def test_stages_have_the_tensors_of_all(tmp_path):
    ranks = [of(Rank(tmp_path, 0, 2, names=("first",)), 3.0), of(Rank(tmp_path, 1, 2, names=("last",)), 4.0)]
    with Run.open(job(tmp_path, ranks)) as run:
        assert [tensor.name for tensor in run.tensors] == ["first", "last"]
        np.testing.assert_allclose(run.tensor_matrix("norm").matrix, [[3, 4]] * 3)
        np.testing.assert_allclose(run.steps().norm, [5] * 3)
        assert run.ranks.disagreements == ()


def test_a_missing_rank_is_said_and_no_norm_given(tmp_path):
    with Run.open(
        job(tmp_path, [of(Rank(tmp_path, 0, 3, (3, 0)), 3.0, 4.0), of(Rank(tmp_path, 1, 3, (3, 1)), 3.0, 4.0)])
    ) as run:
        assert run.steps().missing["norm"].all()
        assert run.steps().missing["clipped_norm"].all()
        assert len(run.tensor_matrix("norm").steps) == 0
        assert len(run.steps()) == 3
        (problem,) = run.ranks.problems
        assert problem == "rank 2 of 3 left no run file; gradient norms are not known without it"
        assert run.status == "incomplete"


def test_a_rank_that_ends_early_is_said_and_no_norm_given_from_there(tmp_path):
    one, other = Rank(tmp_path, 0, 2, (2, 0)), Rank(tmp_path, 1, 2, (2, 1))
    for step in range(4):
        one.step(step, [3.0, 0.0])
        if step < 2:
            other.step(step, [4.0, 0.0])
    one.close()
    other.close("crashed")
    with Run.open(tmp_path / "job.gradclip") as run:
        assert run.steps().missing["norm"].tolist() == [False, False, True, True]
        np.testing.assert_allclose(run.steps().norm[:2], 5)
        assert run.tensor_matrix("norm").steps.tolist() == [0, 1]
        (problem,) = run.ranks.problems
        assert problem == "rank 1 of 2 crashed after 2 of 4 steps; gradient norms after that are not known"
        assert run.status == "crashed"


def test_summands_have_no_norm_and_this_is_said(tmp_path):
    one, other = (Rank(tmp_path, rank, 2) for rank in range(2))
    for rank in (one, other):
        rank.writer.update_meta(shards={"0": [{"shards": 0, "shard": None, "tensors": [1]}]})
    with Run.open(job(tmp_path, [of(one, 3.0, 1.0), of(other, 3.0, 2.0)])) as run:
        assert run.steps().missing["norm"].all()
        (problem,) = run.ranks.problems
        assert problem.startswith("of 1 gradients each rank has a summand")


@pytest.mark.parametrize("damage", ["cut", "other", "none"])
def test_a_rank_whose_file_cannot_be_read(damage, tmp_path):
    path = job(tmp_path, [of(Rank(tmp_path, 0, 2, (2, 0)), 3.0, 4.0), of(Rank(tmp_path, 1, 2, (2, 1)), 3.0, 4.0)])
    other = tmp_path / "ranks" / KEY / "1.gradclip"
    if damage == "cut":
        other.write_bytes(other.read_bytes()[:20000])
    elif damage == "other":
        other.write_text("no database" * 100)
    with Run.open(path) as run:
        assert run.steps().missing["norm"].all() == (damage != "none")
        said = {"cut": "cannot be read", "other": "not a gradclip run", "none": ""}[damage]
        assert [said in problem for problem in run.ranks.problems] == [True] * (damage != "none")


def earlier(folder, ended):
    """The second rank of a job of before, under the same key: it began long ago, and ended then or later."""
    rank = Rank(folder, 1, 2, (2, 1))
    rank.step(0, [100.0, 0.0])
    rank.close()
    connection = sqlite3.connect(rank.writer.path)
    job = json.dumps({"key": KEY, "rank": 1, "size": 2, "began": 1000.0})
    for key, value in {"job": job, "created": "1000.0", "heartbeat": str(ended), "ended": str(ended)}.items():
        connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
    connection.commit()
    connection.close()


@pytest.mark.parametrize("ended", [1001.0, 2e9], ids=["over", "hangs"])
def test_files_of_another_job_under_the_same_name_are_not_taken(ended, tmp_path):
    """A job that is started again at the same address has the same key; of what there was at the time, the nearest is taken."""
    earlier(tmp_path, ended)
    path = job(tmp_path, [of(Rank(tmp_path, 0, 2, (2, 0)), 3.0, 0.0), of(Rank(tmp_path, 1, 2, (2, 1)), 4.0, 0.0)])
    assert len(list((tmp_path / "ranks" / KEY).glob("*.gradclip"))) == 2
    with Run.open(path) as run:
        np.testing.assert_allclose(run.steps().norm, 5)


def test_a_file_of_another_job_does_not_stand_for_a_missing_one(tmp_path):
    earlier(tmp_path, 1001.0)
    with Run.open(job(tmp_path, [of(Rank(tmp_path, 0, 2, (2, 0)), 3.0, 0.0)])) as run:
        assert run.steps().missing["norm"].all()
        assert run.ranks.problems[0].startswith("rank 1 of 2 left no run file")


def test_a_job_is_followed_while_it_is_written(tmp_path):
    one, other = Rank(tmp_path, 0, 2, (2, 0)), Rank(tmp_path, 1, 2, (2, 1))
    one.step(0, [3.0, 0.0])
    one.step(1, [3.0, 0.0])
    one.writer.flush()
    with Run.open(tmp_path / "job.gradclip") as run:
        assert len(run.steps()) == 0  # the other rank has not come so far
        other.step(0, [4.0, 0.0])
        other.writer.flush()
        assert run.steps().norm.tolist() == [5.0]
        assert run.status == "running"
        one.step(2, [6.0, 0.0])
        for step in (1, 2):
            other.step(step, [8.0, 0.0])
        one.writer.flush()
        other.writer.flush()
        np.testing.assert_allclose(run.steps().norm, [5, np.sqrt(73), 10])
        assert run.steps(after=1).step.tolist() == [2]
        one.writer.add_tensors([TensorInfo("late", (1,))])
        one.close()
        other.close()
        assert run.status == "finished"
        assert [tensor.name for tensor in run.tensors] == ["a", "b", "late"]
        np.testing.assert_allclose(run.steps().norm, [5, np.sqrt(73), 10])


def test_many_steps_are_joined_in_portions(tmp_path):
    count = 2500
    ranks = [of(Rank(tmp_path, 0, 2, (2, 0)), 3.0, 0.0), of(Rank(tmp_path, 1, 2, (2, 1)), 4.0, 0.0)]
    with Run.open(job(tmp_path, ranks, count)) as run:
        np.testing.assert_allclose(run.steps().norm, [5] * count)
        assert run.tensor_matrix("norm").steps.tolist() == list(range(count))


def test_it_is_listed_and_exported_as_one_run(tmp_path):
    path = job(tmp_path, [of(Rank(tmp_path, 0, 2, (2, 0)), 3.0, 0.0), of(Rank(tmp_path, 1, 2, (2, 1)), 4.0, 12.0)])
    assert [run.path for run in list_runs(tmp_path)] == [path]
    with Run.open(path) as run:
        steps, table = export(run, tmp_path / "out")[:2]
    assert [line.split(",")[5] for line in steps.read_text().splitlines()] == ["norm", "13.0", "13.0", "13.0"]
    assert table.read_text().splitlines()[1] == "0,5,12"


@pytest.mark.parametrize("key", ["../../../../etc", "0123", 7, None])
def test_a_forged_key_leads_nowhere(key, tmp_path):
    from gradclip.runs import RunFileError

    writer = RunWriter(tmp_path / "job.gradclip", {"job": {"key": key, "rank": 0, "size": 2, "began": 1.0}})
    writer.close()
    with pytest.raises(RunFileError, match="damaged: meta 'job'"):
        Run.open(tmp_path / "job.gradclip")


class TestDisagreements:
    def pair(self, folder, weights=((1.0, 2.0), (1.0, 2.0)), **options):
        ranks = [Rank(folder, rank, 2, **options) for rank in range(2)]
        return ranks, weights

    def told(self, folder, ranks):
        for rank in ranks:
            rank.close()
        with Run.open(folder / "job.gradclip") as run:
            return run.ranks

    def test_copies_that_drift_apart(self, tmp_path):
        (one, other), _ = self.pair(tmp_path)
        for step in range(5):
            one.step(step, [1.0, 2.0], weights=[1.0, 2.0] if step == 0 else None)
            other.step(step, [1.0, 2.0 + 0.1 * step], weights=[1.0, 2.0] if step == 0 else None)
        report = self.told(tmp_path, [one, other])
        (found,) = report.disagreements
        assert (found.what, found.rank, found.first, found.step, found.tensor) == ("norm", 1, 0, 1, "b")
        assert (found.steps, found.compared) == (4, 5)
        assert found.values == pytest.approx((2.0, 2.1))
        assert report.problems == ()

    @pytest.mark.parametrize("weights", [(1.0, 2.1), None])
    def test_other_models_do_not_disagree_and_whose_norms_are_shown_is_said(self, weights, tmp_path):
        (one, other), _ = self.pair(tmp_path)
        one.step(0, [1.0, 2.0], weights=[1.0, 2.0])
        other.step(0, [1.0, 3.0], weights=weights)
        report = self.told(tmp_path, [one, other])
        assert report.disagreements == ()
        (problem,) = report.problems
        assert problem.endswith("norms are those of rank 0")

    def test_rounding_is_no_disagreement(self, tmp_path):
        (one, other), _ = self.pair(tmp_path)
        one.step(0, [1.0, 2.0], weights=[1.0, 2.0])
        other.step(0, [1.0, 2.0 * 1.009], weights=[1.0, 2.0])
        assert self.told(tmp_path, [one, other]).disagreements == ()

    def test_clipping_on_one_rank(self, tmp_path):
        (one, other), _ = self.pair(tmp_path)
        one.step(0, [3.0, 4.0], after=0.5, weights=[1.0, 2.0])
        other.step(0, [3.0, 4.0], weights=[1.0, 2.0])
        (found,) = self.told(tmp_path, [one, other]).disagreements
        assert (found.what, found.tensor, found.values) == ("clipped_norm", "a", (1.5, 3.0))

    @pytest.mark.parametrize("shard", [None, 2])
    def test_a_step_that_one_rank_skips(self, shard, tmp_path):
        ranks = [Rank(tmp_path, rank, 2, shard and (shard, rank)) for rank in range(2)]
        for step in range(3):
            for rank, one in enumerate(ranks):
                one.step(step, [3.0, 4.0], weights=[1.0, 2.0], skipped=bool(step == 1 and rank == 1))
        (found,) = self.told(tmp_path, ranks).disagreements
        assert (found.what, found.rank, found.step, found.values) == ("skipped", 1, 1, (0.0, 1.0))

    def test_steps_that_one_rank_does_not_make(self, tmp_path):
        (one, other), _ = self.pair(tmp_path)
        for step in range(4):
            one.step(step, [3.0, 4.0], weights=[1.0, 2.0])
            if step < 3:
                other.step(step, [3.0, 4.0], weights=[1.0, 2.0])
        (found,) = self.told(tmp_path, [one, other]).disagreements
        assert (found.what, found.rank, found.step, found.values) == ("steps", 1, 3, (4.0, 3.0))

    def test_replicas_of_shards(self, tmp_path):
        ranks = [Rank(tmp_path, rank, 4, (2, rank % 2)) for rank in range(4)]
        for rank, one in enumerate(ranks):
            one.step(0, [3.0, 4.0 + (rank == 3)])
        (found,) = self.told(tmp_path, ranks).disagreements
        assert (found.what, found.rank, found.first, found.tensor) == ("norm", 3, 1, "b")
