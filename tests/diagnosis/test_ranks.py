"""Ranks that disagree, and what is not known of them, as they are told."""

from __future__ import annotations

import numpy as np
import pytest

from gradclip.diagnosis.readings.run_data import read_run
from gradclip.diagnosis.run_verdict import verdict
from gradclip.runs import Run
from tests.diagnosis.support import findings
from tests.runs.test_ranks import Rank


def written(folder, *ranks):
    for rank in ranks:
        rank.close()
    return folder / "job.gradclip"


def pair(folder, size=2):
    return [Rank(folder, rank, size) for rank in range(2)]


def symptom(path):
    (found,) = [one for one in findings(path) if one.name == "ranks-disagree"]
    return found.symptom


def test_gradients(tmp_path):
    one, other = pair(tmp_path)
    for step in range(12):
        one.step(step, [1.0, 2.0], weights=[1.0, 2.0])
        other.step(step, [1.0, 2.0 + (step > 2)], weights=[1.0, 2.0])
    found = symptom(written(tmp_path, one, other))
    assert found.sentence == (
        "Ranks 0 and 1 train copies of the same weights, but at 9 of 12 steps, the first of them step 3, their gradients "
        "differ: b has norm 2 on rank 0 and 3 on rank 1."
    )
    assert found.severity == "warning"
    assert [(one.what, one.value, one.step, one.tensor) for one in found.evidence] == [
        ("gradient norm on rank 0", 2.0, 3, "b"),
        ("gradient norm on rank 1", 3.0, 3, "b"),
    ]
    assert "DistributedDataParallel" in found.fix


def test_clipping(tmp_path):
    one, other = pair(tmp_path)
    one.step(0, [3.0, 4.0], after=0.5, weights=[1.0, 2.0])
    other.step(0, [3.0, 4.0], weights=[1.0, 2.0])
    found = symptom(written(tmp_path, one, other))
    assert "gradients after clipping differ: a has norm 1.5 on rank 0 and 3 on rank 1" in found.sentence
    assert "clip on every rank" in found.fix


@pytest.mark.parametrize("skipping", [0, 1])
def test_skips(skipping, tmp_path):
    ranks = pair(tmp_path)
    for step in range(3):
        for rank, one in enumerate(ranks):
            one.step(step, [3.0, 4.0], weights=[1.0, 2.0], skipped=step == 1 and rank == skipping)
    found = symptom(written(tmp_path, *ranks))
    assert found.sentence == f"Rank {skipping} skipped step 1 and rank {1 - skipping} did not, though they train together."


def test_counts(tmp_path):
    one, other = pair(tmp_path)
    for step in range(3):
        one.step(step, [3.0, 4.0], weights=[1.0, 2.0])
        if not step:
            other.step(step, [3.0, 4.0], weights=[1.0, 2.0])
    assert symptom(written(tmp_path, one, other)).sentence == ("Rank 1 made 1 step and rank 0 3, though they train together.")


def test_several_ranks_are_one_finding(tmp_path):
    ranks = [Rank(tmp_path, rank, 3) for rank in range(3)]
    for rank, one in enumerate(ranks):
        one.step(0, [1.0, 2.0 + rank], weights=[1.0, 2.0])
    assert symptom(written(tmp_path, *ranks)).sentence.endswith("on rank 1; so does 1 other pair of ranks.")


def test_ranks_that_agree(tmp_path):
    one, other = pair(tmp_path)
    for step in range(12):
        one.step(step, [1.0, 2.0], weights=[1.0, 2.0], loss=1.0)
        other.step(step, [1.0, 2.0], weights=[1.0, 2.0], loss=9.0)
    assert "ranks-disagree" not in [one.name for one in findings(written(tmp_path, one, other))]


def test_the_verdict_says_what_is_not_known(tmp_path):
    one = Rank(tmp_path, 0, 2, (2, 0))
    one.step(0, [3.0, 4.0])
    with Run.open(written(tmp_path, one)) as run:
        said = verdict(read_run(run))
        assert np.isnan(run.steps().norm[0])
    assert said.endswith("Rank 1 of 2 left no run file; gradient norms are not known without it.")
    assert "no finite gradient norm was recorded" in said
