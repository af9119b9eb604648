"""Gather what was measured, on its device, and hand it to the run file in batches with one read."""

from __future__ import annotations

import contextlib
import math
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
from gradclip.runs.writer import RunWriter
from gradclip.watch.record.shards import shard_groups
from gradclip.watch.record.stream import Stream

__all__ = ["Measured", "Recorder", "Totals"]

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


@dataclass
class Totals:
    """What a summary says of the run so far."""

    steps: int = 0
    skipped: int = 0
    clipped: int = 0
    clip_attempts: int = 0
    """Steps at which some clipping ran."""
    nonfinite: int = 0
    loss: float = math.nan
    first_loss: float = math.nan
    norm: float = math.nan
    largest: float = 0.0
    worst: str = ""
    sharded: bool = False
    """Whether the norms are those of this process's shards alone: whole ones are known once the run is read."""


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
            for measured, values in zip(waiting, _read(waiting), strict=True):
                self._write(measured, values)

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

    def _write(self, m: Measured, values: list[Floats]) -> None:
        parts = iter(values)
        before = next(parts)
        after, weights, update = (None if t is None else next(parts) for t in (m.after, m.weights, m.update))
        if after is not None and len(after) > len(before):  # parameters have joined meanwhile
            before = np.concatenate([before, np.full(len(after) - len(before), ABSENT)])
        scalars = (m.threshold, m.amp_scale, m.skipped)
        threshold, scale, skipped = (float(next(parts)[0]) if isinstance(one, Tensor) else one for one in scalars)
        losses = [float(part.sum()) for part in parts]
        norm = _total(before)
        clipped_norm = 0.0 if skipped else norm if after is None else _total(after)
        clipped = None if after is None else not abs(clipped_norm - norm) <= 1e-6 * norm
        row = StepRow(
            step=m.step, optimizer=m.stream.number, time=m.time - self._began,
            loss=sum(losses) if losses else None, lr=list(m.lrs) or None,
            norm=norm, clipped_norm=clipped_norm, coefficient=_share(clipped_norm, norm), threshold=threshold,
            clipped=clipped, skipped=bool(skipped), nonfinite=int((~np.isfinite(before)).sum()), amp_scale=scale,
            weight_norm=None if weights is None else _total(weights),
        )  # fmt: skip
        self._count(row, before, self._described[m.stream.number])
        self.open().add_step(row)
        self.open().add_events(m.step, m.stream.number, m.events)
        if m.tensor_rows or self._shards[m.stream.number]:  # of shards, whole norms are made of them
            self._write_tensors(m, before, after, weights, update)

    def _write_tensors(
        self, m: Measured, before: Floats, after: Floats | None, weights: Floats | None, update: Floats | None
    ) -> None:
        number = m.stream.number
        self.open().add_tensor_row(m.step, number, "norm", before)
        if after is not None:
            factor = _one_factor(before, after)
            self.open().add_tensor_row(m.step, number, "clipped_norm", after if factor is None else factor)
        if weights is not None:
            self.open().add_tensor_row(m.step, number, "weight_norm", weights)
        if update is not None:
            self.open().add_tensor_row(m.step, number, "update_norm", update)

    def _count(self, row: StepRow, before: Floats, names: Sequence[str]) -> None:
        totals = self.totals
        totals.steps += 1
        totals.skipped += bool(row.skipped)
        totals.clipped += bool(row.clipped)
        totals.clip_attempts += row.clipped is not None
        totals.nonfinite += bool(row.nonfinite)
        if row.loss is not None:
            totals.first_loss = row.loss if math.isnan(totals.first_loss) else totals.first_loss
            totals.loss = row.loss
        totals.norm = row.norm if row.norm is not None else totals.norm
        if row.norm is not None and row.norm >= totals.largest and len(before):
            totals.largest, totals.worst = row.norm, names[int(np.argmax(before))]


def _read(waiting: Sequence[Measured]) -> list[list[Floats]]:
    """Bring the tensors of many steps to the host, with one copy a device."""
    pieces = [[t.detach().reshape(-1) for t in m.tensors()] for m in waiting]
    flat = [t for step in pieces for t in step]
    by_device: dict[torch.device, list[int]] = {}
    for i, tensor in enumerate(flat):
        by_device.setdefault(tensor.device, []).append(i)
    values: list[Floats] = [np.zeros(0)] * len(flat)
    for device, indices in by_device.items():
        for i, part in zip(indices, _on_host([flat[i] for i in indices], device), strict=True):
            values[i] = part
    found = iter(values)
    return [[next(found) for _ in step] for step in pieces]


def _on_host(tensors: Sequence[Tensor], device: torch.device) -> list[Floats]:
    """Return the vectors of one device as arrays; what is on the host is not copied."""
    if device.type == "cpu":
        return [t.double().numpy() for t in tensors]
    joined = torch.cat([t.to(norm_dtype(device)) for t in tensors]).cpu().double().numpy()
    ends = list(accumulate(t.numel() for t in tensors))
    return [joined[begin:end] for begin, end in pairwise([0, *ends])]


def _total(norms: Floats) -> float:
    """The norm of all tensors together, scaled so that no square overflows; absent tensors do not count."""
    present = norms[norms != ABSENT]
    largest = float(present.max()) if len(present) else 0.0
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * math.sqrt(float(np.square(present / largest).sum()))


def _share(after: float, before: float) -> float:
    return after / before if before > 0 else 1.0


def _one_factor(before: Floats, after: Floats) -> float | None:
    """The one number that all norms were multiplied by, where there is one: it takes no room in the file."""
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return None
    moving = before > 0
    ratios = np.sort(after[moving] / before[moving])
    if not len(ratios):
        return None
    factor = float(ratios[len(ratios) // 2])
    return factor if max(ratios[-1] - factor, factor - ratios[0]) <= 1e-5 * abs(factor) else None
