"""Gather what was measured, on its device, and hand it to the run file in batches with one read."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradclip.backends import norm_dtype
from gradclip.runs.schema import ABSENT, Event, StepRow
from gradclip.runs.totals import Totals
from gradclip.runs.writer import RunWriter
from gradclip.watch.record.shards import shard_groups
from gradclip.watch.record.step_numbers import step_numbers, totals
from gradclip.watch.record.stream import Stream

__all__ = ["Measured", "Recorder"]

MOST_WAITING: Final = 256
"""Steps that wait on the device at most."""
LONGEST_WAIT: Final = 0.4
"""Seconds until what waits is handed over."""

Floats = NDArray[np.float64]


@dataclass
class Measured:
    """One step as it was measured; the tensors are still on the device."""

    stream: Stream
    step: int
    before: Tensor
    after: Tensor | None = None
    """None where nothing was clipped."""
    losses: Sequence[Tensor] = ()
    threshold: Tensor | float | None = None
    lrs: Sequence[float] = ()
    amp_scale: Tensor | float | None = None
    skipped: Tensor | bool = False
    weights: Tensor | None = None
    update: Tensor | None = None
    tensor_rows: bool = True
    events: Sequence[Event] = ()
    time: float = field(default_factory=time.monotonic)

    def tensors(self) -> list[Tensor]:
        """What has to be read from the device, in a fixed order."""
        optional = (self.after, self.weights, self.update, self.threshold, self.amp_scale, self.skipped)
        return [self.before, *(t for t in optional if isinstance(t, Tensor)), *self.losses]


class Recorder:
    """Turn measured steps into rows of a run file; training waits for the device only when a batch is full.

    Args:
        open_file: opens the run file, when the first step is over.
    """

    def __init__(self, open_file: Callable[[], RunWriter]) -> None:
        self._open_file = open_file
        self._writer: RunWriter | None = None
        self.totals = Totals()
        self._waiting: list[Measured] = []
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._oldest = 0.0
        self._began = time.monotonic()
        self._described: dict[int, list[str]] = {}
        self._frozen: dict[int, list[int]] = {}
        self._settings: dict[int, dict[str, Any]] = {}
        self._shards: dict[int, list[dict[str, Any]]] = {}

    def open(self) -> RunWriter:
        """Return the run file, which is opened if it is not open yet."""
        with self._lock:
            if self._writer is None:
                self._writer = self._open_file()
            return self._writer

    def note(self, **meta: Any) -> None:
        """Add or replace what the run file says of the run, if there is one."""
        if self._writer is not None:
            self._writer.update_meta(**meta)

    def add(self, measured: Measured) -> None:
        """Take one step; hands a batch over when it is large or old enough."""
        self._describe(measured.stream)  # now: at the end of the run the model may be gone
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="gradclip-flush", daemon=True)
            self._thread.start()
        with self._lock:
            if not self._waiting:
                self._oldest = measured.time
            self._waiting.append(measured)
            if len(self._waiting) >= MOST_WAITING or measured.time - self._oldest >= LONGEST_WAIT:
                self.flush()

    def flush(self) -> None:
        """Read everything that waits from the device at once and hand it to the writer."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            if waiting:
                self._write(waiting)

    def close(self, status: str = "finished", exit_code: int | None = None) -> None:
        """Hand over what waits and close the file."""
        self._closed.set()
        try:
            self.flush()
        finally:
            if self._writer is not None:
                self._writer.close(status, exit_code)

    def _work(self) -> None:
        """Hand over what the last step before a pause has left (in the thread): the process may be killed in it."""
        while not self._closed.wait(LONGEST_WAIT):
            if self._waiting and time.monotonic() - self._oldest > 2 * LONGEST_WAIT:
                with contextlib.suppress(Exception):  # the next step will meet it, too, and say so
                    self.flush()

    def _describe(self, stream: Stream) -> None:
        known = self._described.setdefault(stream.number, [])
        if len(known) < len(stream):
            tensors = stream.describe()[len(known) :]
            self._frozen.setdefault(stream.number, []).extend(place for place in stream.frozen() if place >= len(known))
            known += [t.name for t in tensors]
            self.open().add_tensors(tensors)
            self._settings[stream.number] = stream.settings()
            self._shards[stream.number] = shard_groups(stream.parameters())
            self.totals.sharded = any(self._shards.values())
            shards = {"shards": self._shards} if any(self._shards.values()) else {}
            self.open().update_meta(frozen=self._frozen, optimizers=self._settings, **shards)

    def _write(self, waiting: Sequence[Measured]) -> None:
        read = [_Read.of(measured, values) for measured, values in zip(waiting, _read(waiting), strict=True)]
        numbers = step_numbers([(one.before, one.after) for one in read])
        rows = []
        for m, one, of in zip(waiting, read, numbers, strict=True):
            norm, clipped_norm = of.norm, 0.0 if one.skipped else of.clipped_norm
            row = StepRow(
                step=m.step, optimizer=m.stream.number, time=m.time - self._began, loss=one.loss, lr=list(m.lrs) or None,
                norm=norm, clipped_norm=clipped_norm, coefficient=clipped_norm / norm if norm > 0 else 1.0,
                threshold=one.threshold, clipped=None if one.after is None else not abs(clipped_norm - norm) <= 1e-6 * norm,
                skipped=bool(one.skipped), nonfinite=of.nonfinite, amp_scale=one.scale,
                weight_norm=None if one.weights is None else float(totals(one.weights[None])[0]),
            )  # fmt: skip
            rows.append(row)
            self.open().add_step(row)
            self.open().add_events(m.step, m.stream.number, m.events)
            if m.tensor_rows or self._shards[m.stream.number]:  # of shards, whole norms are made of them
                self._write_tensors(m, one, of.factor)
        largest = self.totals.add(
            np.array([row.norm for row in rows]),
            np.array([row.loss for row in rows if row.loss is not None]),
            attempts=sum(row.clipped is not None for row in rows),
            clipped=np.array([bool(row.clipped) for row in rows]),
            skipped=np.array([bool(row.skipped) for row in rows]),
            bad=np.array([bool(row.nonfinite) for row in rows]),
        )
        if largest is not None and len(read[largest].before):
            self.totals.worst = self._described[waiting[largest].stream.number][int(np.argmax(read[largest].before))]

    def _write_tensors(self, m: Measured, read: _Read, factor: float | None) -> None:
        number = m.stream.number
        self.open().add_tensor_row(m.step, number, "norm", read.before)
        if read.after is not None:
            self.open().add_tensor_row(m.step, number, "clipped_norm", read.after if factor is None else factor)
        if read.weights is not None:
            self.open().add_tensor_row(m.step, number, "weight_norm", read.weights)
        if read.update is not None:
            self.open().add_tensor_row(m.step, number, "update_norm", read.update)


@dataclass(slots=True)
class _Read:
    """A step, read from its device."""

    before: Floats
    after: Floats | None
    weights: Floats | None
    update: Floats | None
    threshold: float | None
    scale: float | None
    skipped: float
    loss: float | None

    @classmethod
    def of(cls, m: Measured, values: list[Floats]) -> _Read:
        """Give what was read its names."""
        parts = iter(values)
        before = next(parts)
        after, weights, update = (None if t is None else next(parts) for t in (m.after, m.weights, m.update))
        if after is not None and len(after) > len(before):  # parameters have joined meanwhile
            before = np.concatenate([before, np.full(len(after) - len(before), ABSENT)])
        scalars = (m.threshold, m.amp_scale, m.skipped)
        threshold, scale, skipped = (float(next(parts)[0]) if isinstance(one, Tensor) else one for one in scalars)
        losses = [float(part[0] if len(part) == 1 else part.sum()) for part in parts]
        return cls(before, after, weights, update, threshold, scale, float(skipped or 0), sum(losses) if losses else None)


def _read(waiting: Sequence[Measured]) -> list[list[Floats]]:
    """Bring the tensors of many steps to the host, with one copy a device."""
    steps = [m.tensors() for m in waiting]
    by_device: dict[torch.device, list[Tensor]] = {}
    for tensors in steps:
        for tensor in tensors:
            by_device.setdefault(tensor.device, []).append(tensor)
    found = {device: iter(_on_host(tensors, device)) for device, tensors in by_device.items()}
    return [[next(found[tensor.device]) for tensor in tensors] for tensors in steps]


@torch.no_grad()
def _on_host(tensors: Sequence[Tensor], device: torch.device) -> list[Floats]:
    """Return the tensors of one device as vectors."""
    flat = [t if t.dim() == 1 else t.reshape(-1) for t in tensors]
    wide = norm_dtype(device)  # float64, but where a device has none
    joined = torch.cat([t if t.dtype == wide else t.to(wide) for t in flat]).cpu().double().numpy()
    ends = list(accumulate(map(len, flat)))
    return [joined[begin:end] for begin, end in pairwise([0, *ends])]
