"""What a run gives back: columns of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradclip.runs.schema import ABSENT, COUNTS, FLAGS, REALS
from gradclip.runs.validation import DamageError

__all__ = ["Steps", "TensorRows"]

Floats = NDArray[np.float64]
CELLS: Final = 2_000_000
"""Numbers that are in memory at one time, or that a short row may stand for."""
MOST_FILLING: Final = 8
"""Gaps in the learning rates, in multiples of those that are there."""
COLUMNS = ("step", "optimizer", *REALS, *FLAGS, *COUNTS)


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps of a run, one array for each column, in the order of the steps.

    ``missing`` tells what was never measured: there a number is NaN, a flag False and a count 0. A NaN that is not missing was
    recorded as a NaN.
    """

    step: NDArray[np.int64]
    optimizer: NDArray[np.int64]
    time: Floats
    """Seconds since the run began."""
    loss: Floats
    lr: Floats
    """The learning rate of the first parameter group."""
    norm: Floats
    clipped_norm: Floats
    coefficient: Floats
    threshold: Floats
    clipped: NDArray[np.bool_]
    skipped: NDArray[np.bool_]
    nonfinite: NDArray[np.int64]
    """How many tensors held a NaN or Inf."""
    amp_scale: Floats
    weight_norm: Floats
    missing: Mapping[str, NDArray[np.bool_]] = field(repr=False)

    def __len__(self) -> int:
        return len(self.step)

    def measured(self, name: str) -> NDArray[Any]:
        """Return the numbers of a column that were measured, without the missing ones."""
        values: NDArray[Any] = getattr(self, name)[~self.missing[name]]
        return values

    @property
    def bad(self) -> NDArray[np.bool_]:
        """Where the gradients held a NaN or Inf."""
        return (self.nonfinite > 0) | (~self.missing["norm"] & ~np.isfinite(self.norm))

    @property
    def clip_attempts(self) -> int:
        """How many steps some clipping ran at."""
        return int((~self.missing["clipped"]).sum())

    @property
    def clip_rate(self) -> float:
        """The share of these that were changed by it; 0 where none ran."""
        return float(self.clipped.sum()) / self.clip_attempts if self.clip_attempts else 0.0

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, without ``missing``."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "missing"}


class TensorRows(NamedTuple):
    """One kind of number, steps x tensors."""

    steps: NDArray[np.int64]
    matrix: NDArray[np.float32]
    """NaN where the gradient held a NaN, and where there was none: ``missing`` tells which."""
    missing: NDArray[np.bool_]
    """Where a tensor had no gradient."""


def steps_from(chunks: Iterable[Sequence[tuple[Any, ...]]]) -> Steps:
    """Build the columns from what is in the file, some thousands of rows at a time."""
    parts: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    masks: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for cells in chunks:
        for name, column in zip(COLUMNS, cells, strict=True):
            values, missing = _column(column)
            parts[name].append(values)
            masks[name].append(missing)
    gaps = {name: np.concatenate([np.zeros(0, bool), *arrays]) for name, arrays in masks.items()}
    columns = {name: _typed(name, np.concatenate([np.zeros(0), *arrays]), gaps[name]) for name, arrays in parts.items()}
    return Steps(missing=gaps, **columns)


def tensor_rows_from(steps: NDArray[np.int64], raw: NDArray[np.float32]) -> TensorRows:
    """Tell the tensors without a gradient from the numbers."""
    missing = raw == np.float32(ABSENT)
    return TensorRows(steps, np.where(missing, np.float32(np.nan), raw), missing)


class Buckets:
    """Rows of tensors, of each ``size`` of which the largest values are kept, by the first step; a NaN wins."""

    def __init__(self, size: int, width: int) -> None:
        self._size, self._seen = size, 0
        self._steps, self._rows = [np.zeros(0, np.int64)], [np.zeros((0, width), np.float32)]

    def add(self, steps: NDArray[np.int64], raw: NDArray[np.float32]) -> None:
        """Take the next rows."""
        begun = -self._seen % self._size  # so many rows still belong to the last bucket
        self._seen += len(steps)
        if begun:
            last = self._rows[-1]
            last[-1] = np.maximum(last[-1], raw[:begun].max(axis=0))
        starts = np.arange(begun, len(steps), self._size)
        if len(starts):
            self._steps.append(steps[starts])
            self._rows.append(np.maximum.reduceat(raw, starts, axis=0) if self._size > 1 else raw)

    def rows(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the first step of each bucket, and its values."""
        return np.concatenate(self._steps), np.concatenate(self._rows)


def rate_matrix(rates: Sequence[Sequence[float]]) -> Floats:
    """Return the learning rates of many steps as a matrix, NaN where a step has fewer than others.

    Raises:
        DamageError: one step has so many more than the others that the matrix would be out of all proportion to the file.
    """
    width = max(map(len, rates), default=0)
    if len(rates) * width > MOST_FILLING * sum(map(len, rates)) + CELLS:
        raise DamageError(f"steps.lrs holds {width:,} learning rates of one step, and far fewer of others")
    matrix = np.full((len(rates), width), np.nan)
    for row, numbers in zip(matrix, rates, strict=True):
        row[: len(numbers)] = numbers
    return matrix


def packed(numbers: Floats) -> bytes:
    """Little-endian float32; a finite number beyond it stays finite, so that an Inf always says that the gradient held one."""
    largest = float(np.finfo(np.float32).max)
    with np.errstate(all="ignore"):
        numbers = np.where(np.isfinite(numbers), np.clip(numbers, -largest, largest), numbers)
        return numbers.astype("<f4").tobytes()


def unpacked(blobs: Sequence[bytes], factors: Sequence[Any], width: int) -> NDArray[np.float32]:
    """Return packed rows as a matrix of ``width`` columns; a tensor that came later was absent before.

    A row with a factor is multiplied by it, what is absent stays so.

    Raises:
        DamageError: a row is longer than there are tensors, is torn, or holds what is no norm.
    """
    longest = max(map(len, blobs))
    if longest > 4 * width or any(len(blob) % 4 for blob in blobs):
        raise DamageError(f"tensor_rows.data holds {longest:,} bytes for {width:,} tensors")
    filler = np.full(width, ABSENT, "<f4").tobytes()
    size = 4 * width
    whole = b"".join(blob if len(blob) == size else (blob + filler)[:size] for blob in blobs)
    matrix = np.frombuffer(whole, "<f4").astype(np.float32).reshape(len(blobs), width)
    if any(factor is not None for factor in factors):
        by = np.array([1.0 if factor is None else float(factor) for factor in factors])[:, None]
        with np.errstate(all="ignore"):
            matrix = np.where(matrix == np.float32(ABSENT), matrix, (matrix * by).astype(np.float32))
    below = matrix[(matrix < 0) & (matrix != np.float32(ABSENT))]
    if len(below):
        raise DamageError(f"tensor_rows.data holds a norm of {below[0]:.3g}")
    return matrix


def _column(column: tuple[Any, ...]) -> tuple[Floats, NDArray[np.bool_]]:
    """A column as float64, and where it was NULL; a NaN is the text ``nan`` in the file."""
    values = np.array(column, dtype=np.float64)
    missing = np.zeros(len(column), bool)
    nulls = column.count(None)
    if nulls == len(column):
        missing[:] = True
    elif nulls:
        missing[[index for index in np.flatnonzero(np.isnan(values)) if column[index] is None]] = True
    return values, missing


def _typed(name: str, values: Floats, missing: NDArray[np.bool_]) -> NDArray[Any]:
    if name in FLAGS:
        return np.where(missing, 0, values).astype(bool)
    if name in ("step", "optimizer", *COUNTS):
        return np.where(missing, 0, values).astype(np.int64)
    return values
