"""Which process writes a run, whether it is still there, and so what became of the run."""

from __future__ import annotations

import os
import platform
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from gradclip.runs.schema import VERSION

__all__ = ["ending_of", "process_began", "status_of", "surroundings"]

HEARTBEAT: Final = 5.0
"""Seconds between two signs of life, also when no step ends."""
STALE: Final = 60.0
"""Seconds without a sign of life after which nobody writes any more."""


def _identity() -> dict[str, Any]:
    """Return what tells this process from every other: its machine, its process number and when it began."""
    return {**_place(), "pid": os.getpid(), "process_started": _started(os.getpid())}


def surroundings() -> dict[str, Any]:
    """Return what every run notes about itself."""
    return {
        **_identity(),
        "schema": VERSION,
        "created": time.time(),
        "command": list(sys.orig_argv),
        "cwd": _cwd(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": np.__version__,
    }


def ending_of(error: type[BaseException] | None) -> str:
    """Return the status of a run that an exception ended, or none: ``finished``, ``crashed`` or ``interrupted``."""
    return "finished" if error is None else "interrupted" if issubclass(error, KeyboardInterrupt) else "crashed"


def status_of(meta: Mapping[str, Any], now: float) -> str:
    """Return ``running``, ``finished``, ``crashed``, ``interrupted``, ``killed`` or ``incomplete``.

    What the run wrote when it was closed stands. Otherwise the process is looked up, if it ran on this machine; on
    another one only the age of its last sign of life is known. ``incomplete``: recording stopped before the run did.

    Args:
        meta: the run's meta table.
        now: seconds since the epoch, as ``time.time()`` gives them.
    """
    if (status := meta.get("status", "running")) != "running":
        return str(status)
    silent = now - float(meta.get("heartbeat", 0.0)) > STALE
    if not _is_here(meta):
        return "killed" if silent else "running"
    if not _alive(int(meta["pid"]), meta.get("process_started")):
        return "killed"
    return "incomplete" if silent else "running"


def process_began() -> float:
    """When this process began, in seconds since the epoch; now where the system does not say."""
    try:
        booted = next(
            float(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime")
        )
        return booted + float(_started(os.getpid())) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError, StopIteration):
        return time.time()


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:  # deleted under the program's feet
        return ""


def _place() -> dict[str, str]:
    """A process number means something only within one boot of one machine and one container."""
    return {
        "host": socket.gethostname(),
        "boot": _first_line("/proc/sys/kernel/random/boot_id"),
        "pid_namespace": _link("/proc/self/ns/pid"),
    }


def _is_here(meta: Mapping[str, Any]) -> bool:
    # On Windows there is no harmless way to ask for a process by its number: signal 0 would be Ctrl-C.
    return sys.platform != "win32" and "pid" in meta and all(meta.get(key) == value for key, value in _place().items())


def _alive(pid: int, started: str | None) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return _started(pid) == (started or "")  # a number that was given to a later process began at another time


def _started(pid: int) -> str:
    """The clock tick at which a process began; empty where the system does not say, ``gone`` where it is a zombie."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "gone" if state in "ZX" else fields[18]


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
