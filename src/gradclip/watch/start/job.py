"""Of which job this process is a rank, and which; told from what is in the process, without a word to the other ranks."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from dataclasses import dataclass
from typing import Any

import torch

from gradclip.watch.start.launch import Settings

__all__ = ["Job", "has_process_group", "job_of"]

NAMES = (
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
)
"""What launchers say of a job in the environment of all its ranks."""


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
    if settings.child:
        said.append(settings.launch)
    elif os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE"):
        said.append(socket.gethostname())  # two machines may share the folder, each with a job at the same local address
    if "MASTER_ADDR" not in os.environ:
        said.append(_store_address())
    return Job(hashlib.sha256(json.dumps([*said, place[1]]).encode()).hexdigest()[:16], *place)


def has_process_group() -> bool:
    """Whether there is a process group in this process."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _from_process_group(settings: Settings) -> tuple[int, int] | None:
    if settings.inherited_group or not has_process_group():
        return None
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _from_environment(settings: Settings) -> tuple[int, int] | None:
    """What torchrun, and what does as it does, says; a child finds what was said to its parent, which is none of its own."""
    rank, size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or size is None or rank == settings.inherited_rank:
        return None
    return (int(rank), int(size)) if rank.isdecimal() and size.isdecimal() else None


def _store_address() -> str:
    """Where the ranks have met, as they were told to."""
    try:
        store: Any = torch.distributed.distributed_c10d._get_default_store()
        while hasattr(store, "underlying_store"):
            store = store.underlying_store
        return str(getattr(store, "path", None) or f"{store.host}:{store.port}")
    except Exception:  # no group, or a store of the script's own
        return ""
