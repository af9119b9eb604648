"""How a list of tensors is cut into chunks for the GPU kernels, and how the tables get to the device.

Two tables: *chunks* says which elements each program works on, and depends on nothing but sizes; *addresses* says where each
tensor lies. Both are made on the host, sent once without waiting, and kept: gradients that come back at the same addresses,
and graphs that are replayed, send nothing.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["CHUNK", "KINDS", "TILE", "Layout", "Sent", "addresses_of", "capturing", "cut", "layout_of", "send"]

TILE = 4096
"""Elements that a program looks at together."""
CHUNK = 8 * TILE
"""The most elements of one cell that a program sums."""
_NARROWEST = 16
"""Runs that are shorter share a tile as if they had so many elements."""
_MOST = 256
"""Tables that are kept."""
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""What the kernels call each dtype."""

Made = TypeVar("Made")
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Cut:
    """Tensors, cut: lines for ``measure``, ``scale`` and ``clamp`` by the width of their tile, and lines for ``join``.

    A line of chunks is (tensor, kind, offset in bytes, runs, elements of a run, first cell, first slot, unused); slots from
    ``cells`` on are parts of cells. A line of joins is (cell, first slot, slots, unused).
    """

    chunks: dict[int, Ints]
    joins: Ints
    cells: int
    slots: int


def cut(kinds: Sequence[int], counts: Sequence[int], cells: Sequence[int]) -> Cut:
    """Cut tensors of so many elements, each into so many cells of equal length.

    Short cells share a program, one in each row of its tile; a long one is shared by several programs.

    >>> found = cut([0], [100_000], [1])
    >>> found.chunks[4096][:, [2, 4, 6]].tolist(), found.joins.tolist(), found.slots
    ([[0, 32768, 1], [131072, 32768, 2], [262144, 32768, 3], [393216, 1696, 4]], [[0, 1, 4, 0]], 5)
    """
    kind, count, own = (np.asarray(numbers, dtype=np.int64) for numbers in (kinds, counts, cells))
    each = count // np.maximum(own, 1)
    width = np.where(own > 1, _power_of_two(np.clip(each, _NARROWEST, TILE)), TILE)
    together = np.where(each <= TILE, TILE // width, 1)
    parts = np.maximum(-(-each // CHUNK), 1)
    pieces = -(-own // together) * parts
    of = np.repeat(np.arange(len(own)), pieces)
    number = np.arange(len(of)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    in_tensor, part = number // parts[of] * together[of], number % parts[of]
    start = in_tensor * each[of] + part * CHUNK
    runs = np.minimum(together[of], own[of] - in_tensor)
    cell = (np.cumsum(own) - own)[of] + in_tensor
    several = parts[of] > 1
    slot = np.where(several, own.sum() + np.cumsum(several) - 1, cell)
    length = np.minimum(CHUNK, each[of] - part * CHUNK)
    lines = np.stack([of, kind[of], start * np.where(kind == 0, 4, 2)[of], runs, length, cell, slot, 0 * of], axis=1)
    heads = several & (part == 0)
    joins = np.stack([cell[heads], slot[heads], parts[of][heads], 0 * cell[heads]], axis=1)
    by_width = {int(w): lines[width[of] == w] for w in np.unique(width[of])}
    return Cut(by_width, joins, int(own.sum()), int(own.sum() + several.sum()))


def _power_of_two(numbers: Ints) -> Ints:
    """The next power of two, exact for these small numbers."""
    found: Ints = 1 << np.ceil(np.log2(numbers)).astype(np.int64)
    return found


@dataclass(frozen=True, eq=False)
class Sent:
    """A table on a device, and what it takes to use it on another stream than the one that it was sent on."""

    table: Tensor
    stream: torch.cuda.Stream | None = None
    event: torch.cuda.Event | None = None
    host: Tensor | None = None
    """What a graph sends whenever it is replayed."""

    def ready(self) -> Tensor:
        """Return the table; the current stream waits for it, and its memory for the stream."""
        if self.stream is not None and self.event is not None and not capturing(self.table.device):
            current = torch.cuda.current_stream(self.table.device)
            if current != self.stream:
                current.wait_event(self.event)
                self.table.record_stream(current)
        return self.table


def capturing(device: torch.device) -> bool:
    """Whether the current stream is being captured into a graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def send(numbers: Ints, device: torch.device) -> Sent:
    """Send a table to a device without waiting for it."""
    host = torch.from_numpy(np.ascontiguousarray(numbers).reshape(-1))
    if device.type == "cpu":
        return Sent(host)
    host = host.pin_memory()
    table = host.to(device, non_blocking=True)
    if capturing(device):  # an event of a capture means nothing outside it
        return Sent(table, host=host)
    stream = torch.cuda.current_stream(device)
    return Sent(table, stream, stream.record_event())


class _Kept(Generic[Made]):
    """The last things made, by what they were made from.

    What is made while a graph is captured exists only once the graph runs, so it is not for others; and whatever a graph
    uses is kept for good, since the graph reads it whenever it is replayed.
    """

    def __init__(self) -> None:
        self._made: OrderedDict[Hashable, Made] = OrderedDict()
        self._of_graphs: list[Made] = []
        self.unlock()

    def unlock(self) -> None:
        """Have a lock that nobody holds."""
        self._lock = threading.Lock()

    def get(self, device: torch.device, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return what was made from a key, or make it."""
        key, for_graph = (device, key), capturing(device)
        with self._lock:
            found = self._made.get(key)
            if found is not None:
                self._made.move_to_end(key)
        if found is not None and not for_graph:
            return found
        found = found or make()
        with self._lock:
            if for_graph:
                self._of_graphs.append(found)
            else:
                self._made[key] = found
                if len(self._made) > _MOST:
                    self._made.popitem(last=False)
        return found


@dataclass(frozen=True)
class Layout:
    """A cut whose lines are on a device."""

    sent: Sent
    ends: tuple[tuple[int, int], ...]
    """The width of each table's tile, and where its lines end in ``sent``; ``join``'s lines come last, with width 0."""
    cells: int
    slots: int
    kinds: int
    """A bit for each kind that occurs."""

    def tables(self) -> list[tuple[int, int, Tensor]]:
        """Return each table as (width, lines, table); ``join``'s, where there is one, has width 0."""
        table = self.sent.ready()
        begins = (0, *(end for _, end in self.ends))
        pairs = zip(self.ends, begins, strict=False)
        return [(width, (end - begin) // (8 if width else 4), table[begin:end]) for (width, end), begin in pairs if end > begin]


_layouts: _Kept[Layout] = _Kept()
_addresses: _Kept[Sent] = _Kept()

if hasattr(os, "register_at_fork"):  # another thread may hold a lock at that moment, and is not in the child to let go of it
    os.register_at_fork(after_in_child=_layouts.unlock)
    os.register_at_fork(after_in_child=_addresses.unlock)


def layout_of(
    device: torch.device, dtypes: tuple[torch.dtype, ...], counts: tuple[int, ...], cells: tuple[int, ...] | None
) -> Layout:
    """Return the chunks of tensors of these sizes, on their device."""
    return _layouts.get(device, (dtypes, counts, cells), lambda: _laid_out(device, dtypes, counts, cells))


def addresses_of(device: torch.device, addresses: tuple[int, ...]) -> Tensor:
    """Return these addresses, on their device."""
    return _addresses.get(device, addresses, lambda: send(np.array(addresses, dtype=np.int64), device)).ready()


def _laid_out(
    device: torch.device, dtypes: tuple[torch.dtype, ...], counts: tuple[int, ...], cells: tuple[int, ...] | None
) -> Layout:
    kinds = [KINDS[dtype] for dtype in dtypes]
    found = cut(kinds, counts, (1,) * len(counts) if cells is None else cells)
    tables = [*found.chunks.items(), (0, found.joins)]
    ends = np.cumsum([table.size for _, table in tables]).tolist()
    sent = send(np.concatenate([table.ravel() for _, table in tables]), device)
    occurring = sum(1 << kind for kind in set(kinds))
    return Layout(sent, tuple(zip((width for width, _ in tables), ends, strict=True)), found.cells, found.slots, occurring)
