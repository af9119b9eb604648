"""The SQLite half of writing: one connection, whole batches, nothing else."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from gradclip._write import make_file
from gradclip.runs.schema import (
    APPLICATION_ID,
    EVENT_TABLES,
    KINDS,
    PAGE_SIZE,
    TABLES,
    VERSION,
    Event,
    RunFileError,
    StepRow,
    TensorInfo,
    to_json,
    to_real,
    to_text,
)

__all__ = ["INSERT_EVENT", "Batch", "RunStore", "TensorRow", "event_rows"]

KNOWN_PATTERNS: Final = 10_000
"""How many sequences of events are remembered; one that is met again after more of them is written down again."""

INSERT_EVENT: Final = f"INSERT INTO events (pattern, {', '.join(Event._fields)}) VALUES (?{', ?' * len(Event._fields)})"


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One kind of number for every tensor of an optimizer at one step; ``data`` or ``factor``, as the schema has it."""

    step: int
    optimizer: int
    kind: str
    data: bytes | None = None
    factor: float | None = None


@dataclass
class Batch:
    """What is waiting to be written."""

    meta: dict[str, Any] = field(default_factory=dict)
    tensors: list[TensorInfo] = field(default_factory=list)
    steps: list[StepRow] = field(default_factory=list)
    tensor_rows: list[TensorRow] = field(default_factory=list)
    events: list[tuple[int, int, tuple[Event, ...]]] = field(default_factory=list)
    size: int = 0
    """Roughly how many bytes it holds."""

    def __bool__(self) -> bool:
        return bool(self.meta or self.tensors or self.steps or self.tensor_rows or self.events)


class RunStore:
    """A run file that is open for writing.

    A batch is one transaction: it is in the file as a whole or not at all. The write-ahead log lets others read meanwhile, and
    what was committed survives the death of the process (a power cut may take the last seconds, never the file).
    """

    def __init__(self, path: Path, meta: Mapping[str, Any], lock_timeout: float) -> None:
        self._path = path
        self._patterns: dict[tuple[Event, ...], int] = {}
        self._pattern_count = 0
        self._tensor_counts: Counter[int] = Counter()
        with contextlib.suppress(OSError):  # SQLite says what is wrong
            if not make_file(path) and path.is_symlink():
                raise RunFileError(f"{path} is a link; name the file itself")
        # The flusher's thread uses it after this one has opened it, never both at once.
        self._connection = sqlite3.connect(path, timeout=lock_timeout, isolation_level=None, check_same_thread=False)
        try:
            self._create(meta)
        except BaseException:
            self._connection.close()
            raise
        self._identity = _identity(os.stat(path))

    def write(self, batch: Batch) -> None:
        """Write a batch and a sign of life in one transaction."""
        self._check_in_place()
        with self._transaction():
            self._write_meta({**batch.meta, "heartbeat": time.time()})
            self._write_tensors(batch.tensors)
            self._write_steps(batch.steps)
            self._write_tensor_rows(batch.tensor_rows)
            self._write_events(batch.events)

    def finish(self, meta: Mapping[str, Any]) -> None:
        """Write the last meta values, fold the write-ahead log into the file, and close it.

        Then the run is a single file, readable from a read-only disk. While somebody reads, the log has to stay.
        """
        self.write(Batch(meta=dict(meta)))
        with contextlib.suppress(sqlite3.OperationalError):  # all is written; it may stay in the log
            self._connection.execute("PRAGMA busy_timeout = 0")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.close()

    def abandon(self, meta: Mapping[str, Any]) -> None:
        """Close the file after a failure; say so in it if that much can still be written."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA busy_timeout = 0")
            if self.place() == self._path:
                self._write_meta(meta)
            else:  # SQLite would not find the log again at the new place
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _create(self, meta: Mapping[str, Any]) -> None:
        execute = self._connection.execute
        execute(f"PRAGMA page_size = {PAGE_SIZE}")
        with self._transaction("EXCLUSIVE"):
            if execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise RunFileError(f"{self._path} already holds data; every run needs a file of its own")
            for statement in (TABLES + EVENT_TABLES).split(";"):
                execute(statement)
            execute(f"PRAGMA application_id = {APPLICATION_ID}")
            execute(f"PRAGMA user_version = {VERSION}")
            self._connection.executemany("INSERT INTO kinds VALUES (?, ?)", [(code, name) for name, code in KINDS.items()])
            self._write_meta({**meta, "heartbeat": time.time()})
        execute("PRAGMA journal_mode = WAL")  # some network disks cannot: then the file is as safe, and readers wait a little
        execute("PRAGMA synchronous = NORMAL")
        execute("PRAGMA wal_autocheckpoint = 256")

    @contextlib.contextmanager
    def _transaction(self, mode: str = "IMMEDIATE") -> Any:
        self._connection.execute(f"BEGIN {mode}")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def place(self) -> Path | None:
        """Return where the file is now; None where it was deleted, or the system does not say where it was moved."""
        if self._is_at(self._path):
            return self._path
        with contextlib.suppress(OSError):
            links = [link for link in Path("/proc/self/fd").iterdir() if self._is_at(link)]
            places = [Path(os.readlink(link)) for link in links]
            return next((place for place in places if self._is_at(place)), None)
        return None

    def _is_at(self, path: Path) -> bool:
        try:
            return _identity(os.stat(path)) == self._identity
        except OSError:
            return False

    def _check_in_place(self) -> None:
        """A deleted file can still be written to, where the system allows it, but nobody would ever read it."""
        if not self._is_at(self._path):
            place = self.place()
            raise FileNotFoundError(f"the file was moved to {place}" if place else "the file was moved or deleted")

    def _write_meta(self, meta: Mapping[str, Any]) -> None:
        rows = [(to_text(key), to_json(value)) for key, value in meta.items()]
        self._connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    def _write_tensors(self, tensors: Sequence[TensorInfo]) -> None:
        for tensor in tensors:
            optimizer = int(tensor.optimizer)
            row = (to_text(tensor.name), to_json([int(size) for size in tensor.shape]), int(tensor.numel), int(tensor.group))
            position = self._tensor_counts[optimizer]
            self._connection.execute("INSERT INTO tensors VALUES (?, ?, ?, ?, ?, ?)", (optimizer, position, *row))
            self._tensor_counts[optimizer] += 1

    def _write_steps(self, steps: Sequence[StepRow]) -> None:
        marks = ", ".join("?" * 15)
        self._connection.executemany(f"INSERT OR REPLACE INTO steps VALUES ({marks})", map(_step_values, steps))

    def _write_tensor_rows(self, rows: Sequence[TensorRow]) -> None:
        values = ((int(row.step), int(row.optimizer), KINDS[row.kind], to_real(row.factor), row.data) for row in rows)
        self._connection.executemany("INSERT OR REPLACE INTO tensor_rows VALUES (?, ?, ?, ?, ?)", values)

    def _write_events(self, events: Sequence[tuple[int, int, tuple[Event, ...]]]) -> None:
        rows = [(int(step), int(optimizer), self._pattern(happened)) for step, optimizer, happened in events]
        self._connection.executemany("INSERT INTO step_events (step, optimizer, pattern) VALUES (?, ?, ?)", rows)

    def _pattern(self, happened: tuple[Event, ...]) -> int:
        """Return the number of a sequence of events, which is written down when it is first met."""
        if happened not in self._patterns:
            if len(self._patterns) >= KNOWN_PATTERNS:
                self._patterns.clear()
            self._pattern_count += 1
            self._connection.executemany(INSERT_EVENT, event_rows(self._pattern_count, happened))
            self._patterns[happened] = self._pattern_count
        return self._patterns[happened]


def event_rows(pattern: int, happened: Sequence[Event]) -> Iterator[tuple[Any, ...]]:
    """Return the rows of a sequence of events."""
    for place, event in enumerate(happened):
        numbered = event._replace(sequence=place) if event.sequence is None else event
        yield pattern, *(to_text(cell) if isinstance(cell, str) else to_real(cell) for cell in numbered)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _step_values(row: StepRow) -> tuple[Any, ...]:
    rates = [] if row.lr is None else np.atleast_1d(row.lr).tolist()
    reals = (row.norm, row.clipped_norm, row.coefficient, row.threshold)
    counts = (row.clipped, row.skipped, row.nonfinite)
    return (
        int(row.step),
        int(row.optimizer),
        to_real(row.time),
        to_real(row.loss),
        to_real(rates[0] if rates else None),
        to_json(rates) if len(rates) > 1 else None,
        *map(to_real, reals),
        *(None if count is None else int(count) for count in counts),
        to_real(row.amp_scale),
        to_real(row.weight_norm),
    )
