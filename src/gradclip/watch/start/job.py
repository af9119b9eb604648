"""Of which job this process is a rank, and which; told from what is in the process, without a word to the other ranks."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gradclip.runs.paths import new_rank_path, new_run_path
from gradclip.watch.start.launch import Settings

__all__ = ["Job", "job_file", "job_of"]

NAMES = (
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
)
"""What launchers say of a job in the environment of all its ranks."""
LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Job:
    """One of several processes that train together."""

    key: str
    """All ranks have the same, and no other job at the same time has it."""
    rank: int
    size: int


def job_of(settings: Settings) -> Job | None:
    """Return the job of this process; None for one that trains by itself."""
    place = _from_process_group(settings) or _from_environment(settings)
    if place is None or place[1] < 2 or not 0 <= place[0] < place[1]:
        return None
    said: list[Any] = [os.environ.get(name) for name in NAMES]
    host, address = os.environ.get("MASTER_ADDR"), ""
    if host is None:
        host, address = _store_address()
    if settings.child and "TORCHELASTIC_RUN_ID" not in os.environ:  # of torchrun, each machine has a launch of its own
        said.append(settings.launch)
    elif host in LOCAL or os.environ.get("LOCAL_WORLD_SIZE") == str(place[1]):
        said.append(socket.gethostname())  # two machines may share the folder, each with a job at the same address
    said += [host, address]
    return Job(hashlib.sha256(json.dumps([*said, place[1]]).encode()).hexdigest()[:16], *place)


def job_file(job: Job | None, began: float) -> tuple[dict[str, Any], Callable[[str | os.PathLike[str]], Path]]:
    """Return what a run file says of its job, and what makes its path: the first rank's lies where any other run's does.

    Args:
        job: the job, None for a process by itself.
        began: when the process was started.
    """
    if job is None:
        return {}, new_run_path
    new_path = partial(new_rank_path, job=job.key, rank=job.rank) if job.rank else new_run_path
    return {"job": {**asdict(job), "began": began}}, new_path


def _from_process_group(settings: Settings) -> tuple[int, int] | None:
    distributed = torch.distributed
    if settings.inherited_group or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed.get_rank(), distributed.get_world_size()


def _from_environment(settings: Settings) -> tuple[int, int] | None:
    """What torchrun, and what does as it does, says; a child finds what was said to its parent, which is none of its own."""
    rank, size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or size is None or rank == settings.inherited_rank:
        return None
    return (int(rank), int(size)) if rank.isdecimal() and size.isdecimal() else None


def _store_address() -> tuple[str, str]:
    """Where the ranks have met, as they were told to: the machine, and the rest."""
    try:
        store: Any = torch.distributed.distributed_c10d._get_default_store()
        while hasattr(store, "underlying_store"):
            store = store.underlying_store
        return ("", str(store.path)) if hasattr(store, "path") else (str(store.host), str(store.port))
    except Exception:  # no group, or a store of the script's own
        return "", ""
