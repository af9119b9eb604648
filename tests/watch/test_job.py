"""Which job a process belongs to: the same key on all its ranks, told from the environment or the process group alone."""

from __future__ import annotations

import pytest
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from gradclip.watch.start import job as job_module
from gradclip.watch.start.job import job_of
from gradclip.watch.start.launch import Settings

TORCHRUN = {
    "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "0",
}  # fmt: skip


@pytest.fixture
def job(monkeypatch):
    """Return what a process with this environment, on this machine, is a rank of."""

    def found(settings=None, host="node1", **variables):
        for name in (*job_module.NAMES, "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("socket.gethostname", lambda: host)
        return job_of(settings or Settings("train.py"))

    return found


def test_a_process_by_itself_has_none(job):
    assert job() is None
    assert job(RANK="0", WORLD_SIZE="1") is None
    assert job(RANK="x", WORLD_SIZE="2") is None
    assert job(RANK="2", WORLD_SIZE="2") is None


def test_ranks_on_two_machines_have_one_key(job):
    ranks = [job(host=f"node{1 + rank // 2}", RANK=str(rank), **TORCHRUN) for rank in range(4)]
    assert [(one.rank, one.size) for one in ranks] == [(rank, 4) for rank in range(4)]
    assert len({one.key for one in ranks}) == 1


def test_other_jobs_have_other_keys(job):
    alone = {**TORCHRUN, "WORLD_SIZE": "2"}
    jobs = [
        job(RANK="0", **TORCHRUN),
        job(RANK="0", **{**TORCHRUN, "MASTER_PORT": "29501"}),
        job(RANK="0", **{**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "1"}),
        job(RANK="0", **{**TORCHRUN, "SLURM_JOB_ID": "7"}),
        job(RANK="0", **alone),
        job(RANK="0", host="node2", **alone),  # of one machine each, which share the folder
    ]
    assert len({one.key for one in jobs}) == len(jobs)


def test_a_child_is_not_the_rank_of_its_parent(job):
    settings = Settings("train.py", child=True, inherited_rank="1")
    assert job(settings, RANK="1", WORLD_SIZE="2") is None
    assert job(settings, RANK="0", WORLD_SIZE="2").rank == 0  # which it was told to be


def test_children_of_one_launch_have_one_key(job):
    one, other = (Settings("train.py", child=True) for _ in range(2))
    assert job(one, RANK="0", WORLD_SIZE="2").key == job(one, RANK="1", WORLD_SIZE="2").key
    assert job(one, RANK="0", WORLD_SIZE="2").key != job(other, RANK="0", WORLD_SIZE="2").key


def test_workers_of_torchrun_have_one_key_whatever_has_started_it(job):
    children = [Settings("train.py", child=True) for _ in range(2)]  # of a launch on each machine
    keys = {job(child, host=f"node{i}", RANK=str(2 * i), **TORCHRUN).key for i, child in enumerate(children)}
    assert len(keys) == 1


def test_a_process_group_counts_and_one_that_a_fork_inherits_does_not(job):
    dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=3)
    try:
        found = job(RANK="0", WORLD_SIZE="2")
        assert (found.rank, found.size) == (1, 3)
        assert job(Settings("train.py", child=True, inherited_group=True)) is None
    finally:
        dist.destroy_process_group()
