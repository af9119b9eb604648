"""Read a run file, also while it is being written; nothing in the file is ever executed or unpickled."""

from __future__ import annotations

import contextlib
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

from gradclip.runs.columns import (
    CELLS,
    COLUMNS,
    Buckets,
    Steps,
    TensorRows,
    rate_matrix,
    steps_from,
    tensor_rows_from,
    unpacked,
)
from gradclip.runs.compare_ranks import RankReport, rank_report
from gradclip.runs.join_ranks import JoinedRanks
from gradclip.runs.opening import DAMAGE, check_pages, connect, damaged
from gradclip.runs.process import status_of
from gradclip.runs.rank_files import RankFiles, is_first_of_job
from gradclip.runs.schema import EVENT_TYPES, KINDS, Event, TensorInfo
from gradclip.runs.thin import bucket_length
from gradclip.runs.validation import checked, meta_of, rates_of, shape_of

__all__ = ["Run"]

CHUNK: Final = 10_000
"""Rows that are in memory as Python objects at one time."""

TENSOR_ROWS: Final = f"""
SELECT r.step, r.factor, coalesce(r.data, n.data, x'') FROM tensor_rows r
LEFT JOIN tensor_rows n ON r.data IS NULL AND n.step = r.step AND n.optimizer = r.optimizer AND n.kind = {KINDS["norm"]}
WHERE r.optimizer = ? AND r.kind = ? AND r.step > ? ORDER BY r.step
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
        self._pages_checked = False
        self._joined: JoinedRanks | None = None
        self._rank_files: RankFiles | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, alone: bool = False) -> Self:
        """Open a run file for reading.

        Of a job of several processes the file of the first rank stands for all: the others' are found beside it, and norms
        are those of whole tensors.

        Args:
            path: the file.
            alone: read what one rank has recorded, and nothing else.

        Raises:
            RunFileError: there is no such file, it is not a run, it is cut short, or a newer gradclip wrote it.
        """
        run = cls(Path(path), connect(Path(path)))
        if alone:
            return run
        try:
            if is_first_of_job(run.meta):
                run._rank_files = RankFiles(run.path, lambda file: cls.open(file, alone=True))
                run._joined = JoinedRanks(run._connection, run._rank_files)
        except BaseException:
            run.close()
            raise
        return run

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
        if self._rank_files is not None:
            self._rank_files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let everything that is read inside come from one moment of a run that is being written."""
        self._join()
        with self._moment():
            yield

    def _join(self) -> None:
        """Bring what was joined of all ranks up to date, unless one moment is being held."""
        if self._joined is not None and not self._connection.in_transaction:
            with self._damage_told():
                self._joined.refresh()

    @contextlib.contextmanager
    def _moment(self) -> Iterator[None]:
        if self._connection.in_transaction:
            yield
            return
        with self._damage_told():
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            if self._connection.in_transaction:
                with self._damage_told():
                    self._connection.execute("COMMIT")

    @property
    def meta(self) -> dict[str, Any]:
        """What is noted about the run."""
        with self._reading(pages=False):  # a list of runs reads this of every file, and no more
            return meta_of(dict(self._rows("meta", "key", "value")))

    @property
    def status(self) -> str:
        """``running``, ``finished``, ``crashed``, ``interrupted``, ``killed`` or ``incomplete`` (see ``docs/run-file.md``)."""
        with self._reading(pages=False):
            return status_of(self.meta, time.time()) if self._rank_files is None else self._rank_files.status

    @property
    def ranks(self) -> RankReport | None:
        """What is to be said of the ranks of a job: who is missing, and where they disagree; None for one process."""
        if self._rank_files is None:
            return None
        with self._damage_told():
            self._rank_files.look()
            return rank_report(self._rank_files)

    @property
    def ranks_writing(self) -> bool:
        """Whether other ranks of a job still record, or are about to."""
        files = self._rank_files
        if files is None:
            return False
        with self._damage_told():
            files.look()
            return any(map(files.is_writing, range(1, files.size)))

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """The tensors of all optimizers, optimizer by optimizer; names are as the program gave them."""
        names, read = ("name", "shape", "numel", "optimizer", "param_group"), cache(shape_of)
        with self._reading():
            rows = self._rows("tensors", *names, end="ORDER BY optimizer, id")
            return tuple(TensorInfo(name, read(shape), *rest) for name, shape, *rest in rows)

    def tensors_of(self, optimizer: int = 0) -> tuple[TensorInfo, ...]:
        """The tensors of one optimizer, in the order of its tensor rows."""
        return tuple(tensor for tensor in self.tensors if tensor.optimizer == optimizer)

    @property
    def optimizers(self) -> tuple[int, ...]:
        """The numbers of the optimizers that are known, in order."""
        with self._reading():
            rows = self._rows("tensors", "optimizer", end="UNION SELECT optimizer FROM steps ORDER BY 1")
            return tuple(number for (number,) in rows)

    def steps(self, optimizer: int | None = None, *, after: int | None = None) -> Steps:
        """Read the steps of one optimizer, or of all of them.

        Args:
            optimizer: its number; all optimizers unless it is given.
            after: only steps with a larger number, to follow a run that is being written.
        """
        where, values = _where(optimizer, after)
        query = f"SELECT {', '.join(COLUMNS)} FROM steps {where} ORDER BY step, optimizer"
        with self._reading():
            return steps_from(self._chunks("steps", COLUMNS, query, values))

    def learning_rates(self, optimizer: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Read the learning rates of every parameter group: the steps, and a step x group matrix, NaN where there is none."""
        end = "WHERE optimizer = ? AND (lr IS NOT NULL OR lrs IS NOT NULL) ORDER BY step"
        read = cache(rates_of)
        with self._reading():
            rows = list(self._rows("steps", "step", "lrs", "lr", end=end, values=(optimizer,)))
            rates = [[float(one)] if many is None else read(many) for _, many, one in rows]
            return np.array([step for step, *_ in rows], dtype=np.int64), rate_matrix(rates)

    def kinds(self, optimizer: int = 0) -> tuple[str, ...]:
        """Which kinds of tensor rows one optimizer has."""
        query = "SELECT EXISTS (SELECT 1 FROM tensor_rows WHERE optimizer = ? AND kind = ?)"
        with self._reading():
            return tuple(
                kind for kind, code in KINDS.items() if self._connection.execute(query, (optimizer, code)).fetchone()[0]
            )

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
            buckets = Buckets(size, len(self.tensors_of(optimizer)))
            for steps, raw in self.tensor_chunks(kind, optimizer, after=after):
                buckets.add(steps, raw)
            return tensor_rows_from(*buckets.rows())

    def tensor_chunks(
        self, kind: str, optimizer: int = 0, *, rows: int = CHUNK, after: int | None = None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Read the same in portions that fit into memory: steps, and their rows with ``ABSENT`` where there was no gradient."""
        _known(kind)
        width = len(self.tensors_of(optimizer))
        names, values = ("step", "factor", "data"), (optimizer, KINDS[kind], _before_all(after))
        with self._reading():
            for steps, factors, blobs in self._chunks("tensor_rows", names, TENSOR_ROWS, values, _portion(rows, width)):
                yield np.array(steps, dtype=np.int64), unpacked(blobs, factors, width)

    def events(self, *, after: int | None = None) -> list[tuple[int, int, tuple[Event, ...]]]:
        """Read what happened: step, optimizer, and the events that led to it, in the order in which the steps were finished.

        Steps that went alike share one tuple.
        """
        end, values = "WHERE step > ? ORDER BY id", (_before_all(after),)
        with self._reading():
            patterns: dict[int, list[Event]] = {}
            for pattern, *cells in self._rows("events", "pattern", *Event._fields, end="ORDER BY pattern, id"):
                patterns.setdefault(pattern, []).append(_event(cells))
            shared = {pattern: tuple(events) for pattern, events in patterns.items()}
            rows = self._rows("step_events", "step", "optimizer", "pattern", end=end, values=values)
            return [(step, optimizer, shared.get(pattern, ())) for step, optimizer, pattern in rows]

    def _count(self, kind: str, optimizer: int, after: int | None) -> int:
        query = "SELECT count(*) FROM tensor_rows WHERE optimizer = ? AND kind = ? AND step > ?"
        return int(self._connection.execute(query, (optimizer, KINDS[kind], _before_all(after))).fetchone()[0])

    def _rows(self, table: str, *names: str, end: str = "", values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Read some columns of a table, row by row."""
        for cells in self._chunks(table, names, f"SELECT {', '.join(names)} FROM {table} {end}", values):
            yield from zip(*cells, strict=True)

    def _chunks(
        self, table: str, names: Sequence[str], query: str, values: Sequence[Any] = (), rows: int = CHUNK
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Read what a query finds, column by column, so many rows at a time."""
        return checked(self._connection.execute(query, values), table, names, rows)

    @contextlib.contextmanager
    def _reading(self, *, pages: bool = True) -> Iterator[None]:
        """Whatever a damaged or forged file makes go wrong is one kind of error."""
        if pages:
            self._join()
        with self._damage_told(), self._moment():
            if pages and not self._pages_checked:
                check_pages(self._connection)
                self._pages_checked = True
            yield

    @contextlib.contextmanager
    def _damage_told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:  # closed, or used from another thread: not the file's fault
            raise
        except DAMAGE as error:
            raise damaged(self.path, error) from error


def _event(cells: Sequence[Any]) -> Event:
    return Event._make(None if cell is None else kind(cell) for kind, cell in zip(EVENT_TYPES, cells, strict=True))


def _known(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"unknown kind of tensor row {kind!r}; write one of {', '.join(KINDS)}")


def _where(optimizer: int | None, after: int | None) -> tuple[str, Sequence[int]]:
    conditions = {"optimizer = ?": optimizer, "step > ?": after}
    given = {text: value for text, value in conditions.items() if value is not None}
    return ("WHERE " + " AND ".join(given) if given else ""), tuple(given.values())


def _before_all(after: int | None) -> int:
    return -(2**63) if after is None else after


def _portion(rows: int, width: int) -> int:
    return max(1, min(rows, CELLS // max(width, 1)))
