"""Record a training run into one file, without ever holding it up or stopping it.

    writer = RunWriter.create("runs", {"title": "char LSTM"})
    writer.add_tensors([TensorInfo("lstm.weight", (512, 128)), TensorInfo("lstm.bias", (512,))])
    writer.add_step(StepRow(step=0, loss=4.1, norm=2.5, clipped_norm=1.0, coefficient=0.4, threshold=1.0, clipped=True))
    writer.add_tensor_row(0, 0, "norm", [2.4, 0.7])
    writer.close("finished", exit_code=0)

What is added goes into lists in memory; a thread of its own writes them to the disk about once a second.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sqlite3
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from gradclip.runs.columns import packed
from gradclip.runs.paths import new_run_path
from gradclip.runs.process import HEARTBEAT, surroundings
from gradclip.runs.schema import ENDINGS, KINDS, Event, RunFileError, StepRow, TensorInfo, to_json
from gradclip.runs.store import Batch, RunStore, TensorRow

__all__ = ["RunWriter"]

MOST_WAITING: Final = 64 * 2**20
"""Bytes that may wait in memory for a slow disk."""
STEP_SIZE: Final = 400
"""Roughly what a step or an event row takes in memory."""


class RunWriter:
    """A run file that is being written; no method raises because the disk does, and none waits for it but flush and close.

    When the file cannot be written (disk full, read-only or deleted folder, a lock that stays), ``failed`` holds one
    sentence, which is also handed to ``on_failure`` once, and from then on nothing is recorded. ``steps_written`` says how many
    steps are on the disk, in ``path``, which follows a file that was moved where the system says where to. In a forked child
    every method does nothing: the file belongs to the process that opened it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        meta: Mapping[str, Any] | None = None,
        *,
        interval: float = 1.0,
        lock_timeout: float = 10.0,
        on_failure: Callable[[str], object] | None = None,
        close_at_exit: bool = True,
        _problem: RunFileError | None = None,
    ) -> None:
        """Open a new file (or an empty one, as ``new_run_path`` makes it).

        Args:
            path: the file; one that already holds something is left alone, and recording is off.
            meta: what to note about the run, as JSON values: ``title``, ``clip``, ``framework``, ...; the command line, the
                working directory, the versions of Python and NumPy and the process are noted without being asked for.
            interval: seconds between two writes.
            lock_timeout: seconds to wait while another program has locked the file.
            on_failure: is given the sentence when recording fails, from whichever thread found out; default: a RuntimeWarning.
            close_at_exit: close it when the interpreter exits; False where somebody else sees to that.
        """
        self.path = Path(path)
        self.failed: str | None = None
        self.steps_written = 0
        self._interval, self._patience = interval, lock_timeout + 5.0
        self._on_failure = on_failure or _warn
        self._pid = os.getpid()
        self._clock = time.monotonic()
        self._state = threading.Condition(threading.RLock())  # re-entrant: a signal's handler may add a row, too
        self._batch = Batch()
        self._asked = self._written = 0
        self._last_beat = time.monotonic()
        self._ending: dict[str, Any] | None = None
        self._store: RunStore | None = None
        self._thread: threading.Thread | None = None
        try:
            if _problem is not None:
                raise _problem
            self.path = self.path.absolute()  # the program may change its directory
            self._store = RunStore(self.path, {**surroundings(), **(meta or {}), "status": "running"}, lock_timeout)
            thread = threading.Thread(target=self._work, name="gradclip-record", daemon=True)
            thread.start()
            self._thread = thread
        except Exception as error:
            self._fail(error)
            self._abandon()
            return
        if close_at_exit:
            atexit.register(self._at_exit)

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike[str] = "runs",
        meta: Mapping[str, Any] | None = None,
        *,
        new_path: Callable[[str | os.PathLike[str]], Path] = new_run_path,
        **options: Any,
    ) -> RunWriter:
        """Open a file with a new name in a folder; recording is off, not refused, where the folder cannot be written to."""
        try:
            return cls(new_path(folder), meta, **options)
        except RunFileError as error:
            return cls(folder, meta, _problem=error, **options)

    @property
    def recording(self) -> bool:
        """Whether what is added now will be written."""
        return self.failed is None and self._ending is None and os.getpid() == self._pid

    def update_meta(self, **values: Any) -> None:
        """Add or replace meta values (JSON)."""
        now = json.loads(to_json(values))  # as they are at this moment
        self._add(len(values) * STEP_SIZE, lambda batch: batch.meta.update(now))

    def add_tensors(self, tensors: Sequence[TensorInfo]) -> None:
        """Name further tensors; within an optimizer their order is the order of its tensor rows."""
        self._add(len(tensors) * STEP_SIZE, lambda batch: batch.tensors.extend(tensors))

    def add_step(self, row: StepRow) -> None:
        """Add one optimizer step; a second row for the same step and optimizer replaces the first."""
        if row.time is None:
            row = replace(row, time=time.monotonic() - self._clock)
        self._add(STEP_SIZE, lambda batch: batch.steps.append(row))

    def add_tensor_row(self, step: int, optimizer: int, kind: str, values: ArrayLike) -> None:
        """Add one number for each tensor of an optimizer.

        Args:
            step: the step the numbers belong to.
            optimizer: the optimizer's number.
            kind: ``norm``, ``clipped_norm``, ``weight_norm`` or ``update_norm``.
            values: the numbers in the order of the optimizer's tensors, ``ABSENT`` where a tensor had no gradient; they are
                copied and kept as float32. A single number instead: the step's ``norm`` row times that number, which takes no
                room.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown kind of tensor row {kind!r}; write one of {', '.join(KINDS)}")
        if not self.recording:
            return
        numbers = np.asarray(values, dtype=np.float64)
        if numbers.ndim == 0:
            row = TensorRow(step, optimizer, kind, factor=float(numbers))
        else:
            row = TensorRow(step, optimizer, kind, data=packed(numbers))
        self._add(STEP_SIZE + len(row.data or b""), lambda batch: batch.tensor_rows.append(row))

    def add_events(self, step: int, optimizer: int, events: Sequence[Event]) -> None:
        """Add what led to a step of an optimizer, in its order; steps that went alike to the last number share their rows."""
        happened = tuple(events)
        self._add(STEP_SIZE, lambda batch: batch.events.append((step, optimizer, happened)))

    def flush(self, timeout: float = 10.0) -> bool:
        """Write what was added so far; return whether it is in the file after at most ``timeout`` seconds."""
        if not self.recording:
            return False
        with self._state:
            self._asked += 1
            wanted = self._asked
            self._state.notify_all()
            self._state.wait_for(lambda: self._written >= wanted or self.failed is not None, timeout)
            return self._written >= wanted

    def close(self, status: str = "finished", exit_code: int | None = None) -> None:
        """Write the rest and how the run ended, and close the file; a second call does nothing.

        Args:
            status: ``finished``, ``crashed`` or ``interrupted``.
            exit_code: the training process's exit status, where it is known.
        """
        if status not in ENDINGS:
            raise ValueError(f"unknown ending {status!r}; write one of {', '.join(ENDINGS)}")
        if self._thread is None or os.getpid() != self._pid:
            return
        with self._state:
            if self.recording:
                self._ending = {"status": status, "exit_code": exit_code, "ended": time.time()}
            self._state.notify_all()
        atexit.unregister(self._at_exit)
        if threading.current_thread() is self._thread:  # called by on_failure
            return
        self._thread.join(self._patience if self.failed is None else 2.0)
        if self._thread.is_alive():
            self._fail(TimeoutError("the disk did not answer in time"))

    def _add(self, size: int, put: Callable[[Batch], object]) -> None:
        if not self.recording:
            return
        with self._state:
            self._batch.size += size
            full = self._batch.size > MOST_WAITING
            if not full:
                put(self._batch)
        if full:
            self._fail(MemoryError("the disk is too slow for what is recorded"))

    def _work(self) -> None:
        """Write batches until the run is closed or writing fails (in the thread)."""
        try:
            while self.failed is None and self._ending is None:
                with self._state:
                    self._state.wait_for(self._is_wanted, self._interval)
                self._write()
            if self._store is not None and self.failed is None:
                self._write()  # what came in while the last batch was being written
                self._store.finish(self._ending or {})
        except Exception as error:
            self._fail(error)
        finally:
            if self.failed is not None:
                self._abandon()

    def _is_wanted(self) -> bool:
        return self._asked > self._written or self._ending is not None or self.failed is not None

    def _write(self) -> None:
        """Write what is waiting; where nothing is, a sign of life now and then."""
        with self._state:
            batch, self._batch, asked = self._batch, Batch(), self._asked
        now = time.monotonic()
        if self._store is not None and (batch or now - self._last_beat >= HEARTBEAT):
            self._store.write(batch)
            self.steps_written += len(batch.steps)
            self._last_beat = now
        with self._state:
            self._written = asked
            self._state.notify_all()

    def _fail(self, error: Exception) -> None:
        """Switch recording off and say so once."""
        with self._state:
            if self.failed is not None or os.getpid() != self._pid:
                return
            self.failed = f"recording stopped, training goes on: {_sentence(error, self.path)}"
            self._batch = Batch()
            self._state.notify_all()
        atexit.unregister(self._at_exit)
        with contextlib.suppress(Exception):
            self._on_failure(self.failed)

    def _abandon(self) -> None:
        if self._store is not None:
            place = self._store.place()
            self.path, self.steps_written = place or self.path, self.steps_written if place else 0
            self._store.abandon({"status": "incomplete", "failure": self.failed})

    def _at_exit(self) -> None:
        """Close a run that nobody closed: an exception that ended the program is still known here."""
        error = getattr(sys, "last_value", None)
        if error is None:
            self.close("finished")
        else:
            self.close("interrupted" if isinstance(error, KeyboardInterrupt) else "crashed", exit_code=1)


def _sentence(error: Exception, path: Path) -> str:
    if isinstance(error, sqlite3.Error):
        return f"cannot write {path} ({error})"
    if isinstance(error, RunFileError):
        return str(error)
    return f"cannot write {path} ({error or type(error).__name__})"


def _warn(sentence: str) -> None:
    """Warn; where warnings are errors, print, for even then recording must not stop training."""
    try:
        warnings.warn(sentence, RuntimeWarning, stacklevel=2)
    except RuntimeWarning:
        print(f"gradclip: {sentence}", file=sys.stderr)
