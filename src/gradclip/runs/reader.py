"""Read a run file, also while it is being written; nothing in the file is ever executed or unpickled."""

from __future__ import annotations

import contextlib
import itertools
import json
import operator
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from gradclip.runs.columns import COLUMNS, Steps, TensorRows, steps_from, tensor_rows_from, unpacked
from gradclip.runs.opening import DAMAGE, connect, damaged
from gradclip.runs.process import status_of
from gradclip.runs.schema import EVENT_TYPES, KINDS, Event, TensorInfo
from gradclip.runs.thin import bucket_length

__all__ = ["Run"]

CHUNK: Final = 10_000
"""Rows that are in memory as Python objects at one time."""

TENSOR_ROWS: Final = """
SELECT r.step, r.factor, coalesce(r.data, n.data, x'') FROM tensor_rows r
LEFT JOIN tensor_rows n ON r.data IS NULL AND n.step = r.step AND n.optimizer = r.optimizer
    AND n.kind = (SELECT id FROM kinds WHERE name = 'norm')
WHERE r.optimizer = ? AND r.kind = (SELECT id FROM kinds WHERE name = ?) AND r.step > ? ORDER BY r.step
"""


class Run:
    """A recorded run; every call reads what is in the file at that moment (``snapshot`` holds the moment for several calls).

    >>> import tempfile
    >>> from gradclip.runs import RunWriter, StepRow, TensorInfo, new_run_path
    >>> folder = tempfile.TemporaryDirectory()
    >>> writer = RunWriter(new_run_path(folder.name, "train.py"), {"title": "a test"})
    >>> writer.add_tensors([TensorInfo("w", (2, 2)), TensorInfo("b", (2,))])
    >>> writer.add_step(StepRow(step=0, loss=4.0, norm=5.0))
    >>> writer.add_tensor_row(0, 0, "norm", [3.0, 4.0])
    >>> writer.close()
    >>> with Run.open(writer.path) as run:
    ...     run.status, run.meta["title"], run.steps().loss, run.tensor_matrix("norm").matrix
    ('finished', 'a test', array([4.]), array([[3., 4.]], dtype=float32))
    >>> folder.cleanup()
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a run file for reading.

        Raises:
            RunFileError: there is no such file, it is not a run, it is cut short, or a newer gradclip wrote it.
        """
        return cls(Path(path), connect(Path(path)))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let everything that is read inside come from one moment of a run that is being written."""
        if self._connection.in_transaction:
            yield
            return
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")

    @property
    def meta(self) -> dict[str, Any]:
        """What is noted about the run."""
        with self._reading():
            return {key: json.loads(value) for key, value in self._connection.execute("SELECT key, value FROM meta")}

    @property
    def status(self) -> str:
        """``running``, ``finished``, ``crashed``, ``interrupted``, ``killed`` or ``incomplete`` (see ``docs/run-file.md``)."""
        with self._reading():
            return status_of(self.meta, time.time())

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """The tensors of all optimizers, optimizer by optimizer; names are as the program gave them."""
        query = "SELECT name, shape, numel, optimizer, param_group FROM tensors ORDER BY optimizer, id"
        with self._reading():
            rows = self._connection.execute(query).fetchall()
            return tuple(TensorInfo(str(name), tuple(json.loads(shape)), *map(int, rest)) for name, shape, *rest in rows)

    def tensors_of(self, optimizer: int = 0) -> tuple[TensorInfo, ...]:
        """The tensors of one optimizer, in the order of its tensor rows."""
        return tuple(tensor for tensor in self.tensors if tensor.optimizer == optimizer)

    @property
    def optimizers(self) -> tuple[int, ...]:
        """The numbers of the optimizers that are known, in order."""
        query = "SELECT optimizer FROM tensors UNION SELECT optimizer FROM steps ORDER BY 1"
        with self._reading():
            return tuple(int(number) for (number,) in self._connection.execute(query))

    def steps(self, optimizer: int | None = None, *, after: int | None = None) -> Steps:
        """Read the steps of one optimizer, or of all of them.

        Args:
            optimizer: its number; all optimizers unless it is given.
            after: only steps with a larger number, to follow a run that is being written.
        """
        where, values = _where(optimizer, after)
        cursor = self._connection.cursor()
        with self._reading():
            cursor.execute(f"SELECT {', '.join(COLUMNS)} FROM steps {where} ORDER BY step, optimizer", values)
            return steps_from(_chunks(cursor, CHUNK))

    def learning_rates(self, optimizer: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Read the learning rates of every parameter group: the steps, and a step x group matrix, NaN where there is none."""
        query = "SELECT step, lrs, lr FROM steps WHERE optimizer = ? AND (lr IS NOT NULL OR lrs IS NOT NULL) ORDER BY step"
        read = cache(json.loads)
        with self._reading():
            rows = self._connection.execute(query, (optimizer,)).fetchall()
            rates = [read(many) if many else [float(one)] for _, many, one in rows]
            matrix = np.full((len(rows), max(map(len, rates), default=0)), np.nan)
            for row, numbers in zip(matrix, rates, strict=True):
                row[: len(numbers)] = numbers
            return np.array([step for step, *_ in rows], dtype=np.int64), matrix

    def kinds(self, optimizer: int = 0) -> tuple[str, ...]:
        """Which kinds of tensor rows one optimizer has."""
        query = "SELECT EXISTS (SELECT 1 FROM tensor_rows r JOIN kinds k ON k.id = r.kind WHERE r.optimizer = ? AND k.name = ?)"
        with self._reading():
            return tuple(kind for kind in KINDS if self._connection.execute(query, (optimizer, kind)).fetchone()[0])

    def tensor_matrix(
        self, kind: str = "norm", optimizer: int = 0, *, max_steps: int | None = None, after: int | None = None
    ) -> TensorRows:
        """Read one number for every tensor and step.

        Args:
            kind: ``norm``, ``clipped_norm``, ``weight_norm`` or ``update_norm``.
            optimizer: its number.
            max_steps: thin to at most so many rows: the largest value of every bucket, by its first step (a NaN wins).
            after: only steps with a larger number.
        """
        _known(kind)
        with self._reading():
            size = 1 if max_steps is None else bucket_length(self._count(kind, optimizer, after), max(max_steps, 1))
            parts = []
            for steps, raw in self.tensor_chunks(kind, optimizer, rows=max(CHUNK // size, 1) * size, after=after):
                starts = np.arange(0, len(steps), size)
                parts.append((steps[starts], np.maximum.reduceat(raw, starts, axis=0) if size > 1 else raw))
            width = len(self.tensors_of(optimizer))
            steps = np.concatenate([np.zeros(0, np.int64), *(steps for steps, _ in parts)])
            return tensor_rows_from(steps, np.concatenate([np.zeros((0, width), np.float32), *(raw for _, raw in parts)]))

    def tensor_chunks(
        self, kind: str, optimizer: int = 0, *, rows: int = CHUNK, after: int | None = None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Read the same in portions that fit into memory: steps, and their rows with ``ABSENT`` where there was no gradient."""
        _known(kind)
        width = len(self.tensors_of(optimizer))
        with self._reading():
            cursor = self._connection.execute(TENSOR_ROWS, (optimizer, kind, _before_all(after)))
            for found in _chunks(cursor, rows):
                steps, factors, blobs = zip(*found, strict=True)
                yield np.array(steps, dtype=np.int64), unpacked(blobs, factors, width)

    def events(self, *, after: int | None = None) -> list[tuple[int, int, tuple[Event, ...]]]:
        """Read what happened: step, optimizer, and the events that led to it, in the order in which the steps were finished.

        Steps that went alike share one tuple.
        """
        query = "SELECT step, optimizer, pattern FROM step_events WHERE step > ? ORDER BY id"
        with self._reading():
            rows = self._connection.execute(query, (_before_all(after),)).fetchall()
            patterns: dict[int, tuple[Event, ...]] = {}
            events = self._connection.execute(f"SELECT pattern, {', '.join(Event._fields)} FROM events ORDER BY pattern, id")
            for pattern, cells in itertools.groupby(events, operator.itemgetter(0)):
                patterns[pattern] = tuple(map(_event, cells))
            return [(int(step), int(optimizer), patterns.get(pattern, ())) for step, optimizer, pattern in rows]

    def _count(self, kind: str, optimizer: int, after: int | None) -> int:
        query = (
            "SELECT count(*) FROM tensor_rows WHERE optimizer = ? AND kind = (SELECT id FROM kinds WHERE name = ?) AND step > ?"
        )
        return int(self._connection.execute(query, (optimizer, kind, _before_all(after))).fetchone()[0])

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Whatever a damaged or forged file makes go wrong is one kind of error."""
        try:
            with self.snapshot():
                yield
        except sqlite3.ProgrammingError:  # closed, or used from another thread: not the file's fault
            raise
        except DAMAGE as error:
            raise damaged(self.path, error) from error


def _event(cells: Sequence[Any]) -> Event:
    return Event._make(None if cell is None else kind(cell) for kind, cell in zip(EVENT_TYPES, cells[1:], strict=True))


def _known(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"unknown kind of tensor row {kind!r}; write one of {', '.join(KINDS)}")


def _where(optimizer: int | None, after: int | None) -> tuple[str, Sequence[int]]:
    conditions = {"optimizer = ?": optimizer, "step > ?": after}
    given = {text: value for text, value in conditions.items() if value is not None}
    return ("WHERE " + " AND ".join(given) if given else ""), tuple(given.values())


def _before_all(after: int | None) -> int:
    return -(2**63) if after is None else after


def _chunks(cursor: sqlite3.Cursor, size: int) -> Iterator[list[tuple[Any, ...]]]:
    while rows := cursor.fetchmany(size):
        yield rows
