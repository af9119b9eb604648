"""The files of a job of several processes: which belongs to which rank, told by what they say of themselves."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gradclip.runs.paths import RANKS
from gradclip.runs.schema import SUFFIX, RunFileError

if TYPE_CHECKING:
    from gradclip.runs.reader import Run

__all__ = ["RankFiles", "is_first_of_job"]

SKEW: Final = 5.0
"""Seconds by which the clocks of two machines may differ."""
PATIENCE: Final = 30.0
"""Seconds after which a rank whose file is not there is not waited for."""


def is_first_of_job(meta: Mapping[str, Any]) -> bool:
    """Whether a run file is that of the first rank of a job of several processes."""
    job = meta.get("job")
    return job is not None and job["rank"] == 0 and job["size"] > 1


class RankFiles:
    """The run files of a job, opened one by one and each as it is, by rank.

    Args:
        path: the file of the first rank.
        open_alone: opens a run file as it is.
    """

    def __init__(self, path: Path, open_alone: Callable[[Path], Run]) -> None:
        self._open_alone = open_alone
        first = open_alone(path)
        self.runs: dict[int, Run] = {0: first}
        self.unreadable: dict[int, str] = {}
        """Why the file of a rank cannot be read."""
        self._meta = first.meta
        self.size = int(self._meta["job"]["size"])
        self._folder = path.parent / RANKS / str(self._meta["job"]["key"])
        self.look()

    @property
    def missing(self) -> list[int]:
        """The ranks that have no file, or none that can be read."""
        return [rank for rank in range(self.size) if rank not in self.runs]

    @property
    def awaited(self) -> bool:
        """Whether a rank that has no file yet may still begin one."""
        young = time.time() - float(self._meta.get("created", 0.0)) < PATIENCE
        return bool(self.missing) and young and self.runs[0].status == "running"

    def is_writing(self, rank: int) -> bool:
        """Whether a rank still records, or is about to."""
        return self.runs[rank].status == "running" if rank in self.runs else self.awaited and rank not in self.unreadable

    @property
    def status(self) -> str:
        """What became of the job: of the first rank, and where that has finished, of the first one that has not."""
        unknown = "incomplete" if self._meta.get("shards") else "finished"  # the first rank knows all but shards
        statuses = [self.runs[rank].status if rank in self.runs else unknown for rank in range(self.size)]
        return next((status for status in statuses if status != "finished"), "finished")

    def look(self) -> None:
        """Find the files that are not known yet."""
        for rank in self.missing:
            self.unreadable.pop(rank, None)
            found = [run for path in self._paths(rank) if (run := self._opened(rank, path)) is not None]
            best = min(found, key=lambda run: abs(_began(run.meta) - _began(self._meta)), default=None)
            for run in found:
                if run is not best:
                    run.close()
            if best is not None:
                self.runs[rank] = best

    def close(self) -> None:
        """Close all of them."""
        for run in self.runs.values():
            run.close()

    def _paths(self, rank: int) -> list[Path]:
        return sorted([*self._folder.glob(f"{rank}{SUFFIX}"), *self._folder.glob(f"{rank}-*{SUFFIX}")])

    def _opened(self, rank: int, path: Path) -> Run | None:
        """Open a file if it is this job's: one that was started again under the same name is over, or not yet begun.

        The ranks of a job may record one after the other, but all of their processes are there when they meet.
        """
        run = None
        try:
            run = self._open_alone(path)
            if self._is_of_job(rank, run.meta):
                return run
        except RunFileError as error:
            self.unreadable[rank] = str(error)
        if run is not None:
            with contextlib.suppress(RunFileError):
                run.close()
        return None

    def _is_of_job(self, rank: int, meta: Mapping[str, Any]) -> bool:
        job, own = meta.get("job"), self._meta["job"]
        if not job or (job["key"], job["rank"], job["size"]) != (own["key"], rank, own["size"]):
            return False
        slack = 0.0 if meta.get("host") == self._meta.get("host") else SKEW
        return _began(meta) <= _end(self._meta) + slack and _began(self._meta) <= _end(meta) + slack


def _began(meta: Mapping[str, Any]) -> float:
    """When the process of a rank was started."""
    return float(meta["job"]["began"])


def _end(meta: Mapping[str, Any]) -> float:
    """The last moment at which a run is known to have been there."""
    ended = meta.get("ended")
    if isinstance(ended, (int, float)) and math.isfinite(ended):
        return float(ended)
    return float(meta.get("heartbeat", 0.0))
