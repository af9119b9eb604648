"""Lay the steps and norms of a whole job over those of its first rank, in memory; the files stay as they are.

The square of a tensor's norm is the sum of the squares of its shards' norms, each shard once, however many ranks have it. What
cannot be known, because the file of a rank is missing or ends early, is missing, and never a norm of what is there.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gradclip.runs.columns import CELLS, packed
from gradclip.runs.columns import Steps as RunSteps
from gradclip.runs.rank_layout import RankLayout, aligned, rank_layout
from gradclip.runs.schema import ABSENT, KINDS, TABLES, to_json, to_real

if TYPE_CHECKING:
    from gradclip.runs.rank_files import RankFiles
    from gradclip.runs.reader import Run

__all__ = ["JoinedRanks"]

WINDOW: Final = 1000
"""Steps that are joined at a time."""
JOINED: Final = ("norm", "clipped_norm", "coefficient", "clipped", "nonfinite", "weight_norm")
UPDATE: Final = f"UPDATE temp.steps SET {', '.join(f'{name} = ?' for name in JOINED)} WHERE step = ? AND optimizer = ?"
INSERT: Final = "INSERT INTO temp.tensor_rows VALUES (?, ?, ?, ?, ?)"
COPY: Final = "INSERT INTO temp.steps SELECT * FROM main.steps WHERE optimizer = ? AND step > ? AND step <= ?"

Steps = NDArray[np.int64]
Floats = NDArray[np.float64]


class JoinedRanks:
    """The tables of a job, laid over those of its first rank's file as far as all ranks have come.

    Args:
        connection: the first rank's file; what is laid over its tables is in memory.
        files: those of all ranks.
    """

    def __init__(self, connection: sqlite3.Connection, files: RankFiles) -> None:
        self._connection, self._files = connection, files
        self._layouts: dict[int, RankLayout] = {}
        self._last: dict[int, int] = {}
        self._laid = self._over = False

    def refresh(self) -> None:
        """Join what has come since the last time."""
        if self._over:
            return
        self._files.look()
        over = not any(map(self._files.is_writing, range(self._files.size)))
        runs = self._files.runs
        layouts = {number: rank_layout(runs, number) for number in runs[0].optimizers}
        if self._laid or not all(layout.alike for layout in layouts.values()):
            self._lay(layouts)
            for number, layout in layouts.items():
                self._join(number, layout)
        self._over = over

    def _lay(self, layouts: dict[int, RankLayout]) -> None:
        """Make the tables, anew where tensors have come."""
        if self._laid and {n: layout.tensors for n, layout in layouts.items()} == {
            n: layout.tensors for n, layout in self._layouts.items()
        }:
            self._layouts = layouts
            return
        with _writing(self._connection) as execute:
            for statement in TABLES.split(";"):
                words = statement.split()
                if words[:2] == ["CREATE", "TABLE"] and words[2] in ("tensors", "steps", "tensor_rows"):
                    execute(f"DROP TABLE IF EXISTS temp.{words[2]}")
                    execute(statement.replace("CREATE TABLE", "CREATE TEMP TABLE"))
            execute("CREATE UNIQUE INDEX temp.joined_rows ON tensor_rows (step, optimizer, kind)")
            for number, layout in layouts.items():
                for place, tensor in enumerate(layout.tensors):
                    row = (tensor.name, to_json(list(tensor.shape)), tensor.numel, tensor.group)
                    execute("INSERT INTO temp.tensors VALUES (?, ?, ?, ?, ?, ?)", (number, place, *row))
        self._layouts, self._laid = layouts, True
        self._last = dict.fromkeys(layouts, -1)

    def _join(self, number: int, layout: RankLayout) -> None:
        last, runs = self._last[number], self._files.runs
        first = runs[0].steps(number, after=last)
        reached = [self._reached(rank, number) for rank in range(self._files.size)]
        steps = first.step[
            first.step <= min((step for step in reached if step is not None), default=first.step[-1:].max(initial=-1))
        ]
        if not len(steps):
            return
        clipped = np.zeros(len(steps), bool)
        for run in runs.values():  # a shard of zeros is not changed by what shortens the others
            own = run.steps(number, after=last)
            clipped |= np.isin(steps, own.step[own.clipped])
        with _writing(self._connection) as execute:
            execute(COPY, (number, last, int(steps[-1])))
            size = max(1, min(WINDOW, CELLS // max(1, len(layout.tensors))))
            for begin in range(0, len(steps), size):
                window = steps[begin : begin + size]
                joined = {kind: _joined(runs, kind, number, layout, window) for kind in KINDS}
                for kind, (known, rows) in joined.items():
                    for at in np.flatnonzero(known).tolist():
                        execute(INSERT, (int(window[at]), number, KINDS[kind], None, packed(rows[at])))
                for at, step in enumerate(window.tolist()):
                    values = _numbers(first, begin + at, bool(clipped[begin + at]), _of_step(joined, at))
                    execute(UPDATE, (*values, step, number))
        self._last[number] = int(steps[-1])

    def _reached(self, rank: int, number: int) -> int | None:
        """The last step of a rank that still writes; None where nothing is to be waited for."""
        if not self._files.is_writing(rank):
            return None
        last, run = self._last[number], self._files.runs.get(rank)
        return last if run is None else max([last, *run.steps(number, after=last).step[-1:].tolist()])


def _of_step(joined: Mapping[str, tuple[NDArray[np.bool_], Floats]], at: int) -> dict[str, Floats]:
    """The norms of all tensors at one step, of each kind that is known."""
    return {kind: rows[at] for kind, (known, rows) in joined.items() if known[at]}


def _numbers(first: RunSteps, at: int, clipped: bool, rows: Mapping[str, Floats]) -> tuple[Any, ...]:
    """What a step's row says of the whole job, in the order of ``JOINED``; what it takes all shards to know may be missing."""
    flag = None if first.missing["clipped"][at] else int(clipped)
    if "norm" not in rows:
        return None, None, None, flag, None, None
    norm, bad = _total(rows["norm"]), int((~np.isfinite(rows["norm"])).sum())
    after = 0.0 if first.skipped[at] else _total(rows.get("clipped_norm", rows["norm"]))
    weights = _total(rows["weight_norm"]) if "weight_norm" in rows else None
    return to_real(norm), to_real(after), to_real(after / norm if norm > 0 else 1.0), flag, bad, to_real(weights)


def _joined(runs: dict[int, Run], kind: str, number: int, layout: RankLayout, steps: Steps) -> tuple[NDArray[np.bool_], Floats]:
    """Return the norms of whole tensors, and at which steps those of all are known."""
    squares = np.zeros((len(steps), len(layout.tensors)))
    present = np.zeros(squares.shape, bool)
    found = np.zeros(squares.shape, np.int64)
    for part in layout.parts:
        there, rows = aligned(runs[part.rank], kind, number, steps)
        own = rows[:, part.places]
        has = own != ABSENT
        with np.errstate(all="ignore"):
            squares[:, part.columns] += np.where(has, np.square(own), 0.0)
        present[:, part.columns] |= has
        found[:, part.columns] += there[:, None]
    needed = np.where(layout.shards > 0, layout.shards, len(runs) + 1)
    known = np.asarray((found >= needed).all(axis=1) & found.any(axis=1), dtype=np.bool_)
    norms: Floats = np.where(present, np.sqrt(squares), ABSENT)
    return known, norms


def _total(norms: Floats) -> float:
    with np.errstate(all="ignore"):
        return float(np.sqrt(np.square(norms[norms != ABSENT]).sum()))


@contextlib.contextmanager
def _writing(connection: sqlite3.Connection) -> Iterator[Any]:
    """Write to what is laid over the file, as a whole or not at all; the file itself is only read."""
    connection.execute("PRAGMA query_only = OFF")
    connection.execute("BEGIN")
    try:
        yield connection.execute
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    finally:
        connection.execute("PRAGMA query_only = ON")
