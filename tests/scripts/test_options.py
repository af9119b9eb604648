"""`--clip`, and runs with several processes."""

from __future__ import annotations

import pytest

from tests.scripts.support import OURS, program, python, watched


@pytest.mark.parametrize(
    ("name", "left_out"),
    [("accumulation", 10), ("attached", 7), ("by_hand_no_grad", 12), ("closures", 4), ("adam_scheduled", 0)],
)
def test_clip_replaces_the_scripts_own(name, left_out, tmp_path):
    done = watched(program(name), tmp_path, "--clip", "global_norm:0.125")
    assert done.code == 0, done.stderr
    with done.open() as run:
        for number in run.optimizers:
            steps = run.steps(number)
            fine = ~steps.skipped
            assert (steps.clipped_norm[fine] <= 0.125 * (1 + 1e-6)).all()
            assert (steps.clipped[fine] == (steps.norm > 0.125)[fine]).all()
            assert (steps.threshold == 0.125).all()
        assert run.meta["clip"] == "global_norm:0.125"
        assert run.meta["replaced_clips"] == left_out
    (line,) = [line for line in done.said if line.startswith("clip ")]
    assert "global_norm:0.125 clipped" in line
    assert ("left out" in line) == (left_out > 0)


def test_clip_is_checked_before_anything_runs(tmp_path):
    done = watched(program("leaves"), tmp_path, "--clip", "no_such_recipe:1")
    assert done.code == 2
    assert "no_such_recipe" in done.stderr
    assert done.stdout == ""


def test_clip_that_cannot_be_applied_stops_the_script_before_it_trains(tmp_path):
    done = watched(program("leaves"), tmp_path, "--clip", "group_norm:1.0,patterns=head.*")
    assert done.code == 2
    assert not done.runs
    assert "cannot be applied, so the script was stopped" in done.said[0]
    assert done.said[1:] == ["NOTHING WAS RECORDED.", done.said[0]]


def test_under_torchrun_the_first_rank_records_and_all_clip(tmp_path):
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    usual = python(*ranks, *program("ranks", "0.5"), cwd=tmp_path)
    assert usual.code == 0, usual.stderr
    words = ["-m", "gradclip", "run", "--no-report", "--clip", "global_norm:0.5", *program("ranks")]
    recorded = python(*ranks, *words, cwd=tmp_path)
    assert sorted(recorded.stdout.splitlines()) == sorted(usual.stdout.splitlines())
    assert recorded.stderr.count(f"{OURS}4 steps recorded") == 1
    with recorded.open() as run:
        assert len(run.steps()) == 4
