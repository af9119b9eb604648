"""Which rank of a job has what of each tensor: whole tensors that all have, and shards of which each is somewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradclip.runs.schema import ABSENT, TensorInfo

if TYPE_CHECKING:
    from gradclip.runs.reader import Run

__all__ = ["RankLayout", "aligned", "rank_layout"]

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """What one rank has that no rank before it has: its places there, and those in the whole list."""

    rank: int
    places: Places
    columns: Places


@dataclass(frozen=True)
class Copy:
    """What one rank has as well as an earlier one."""

    rank: int
    places: Places
    columns: Places
    first: int
    """The rank that has the same."""
    first_places: Places


@dataclass(frozen=True)
class RankLayout:
    """The tensors of one optimizer on all ranks."""

    tensors: tuple[TensorInfo, ...]
    shards: NDArray[np.int64]
    """Into how many shards each is cut: 1 for a whole one, 0 where each rank has a summand of its gradient."""
    parts: tuple[Part, ...]
    """Each shard once."""
    copies: tuple[Copy, ...]
    alike: bool
    """Whether the first rank has all tensors whole, so that its own numbers are those of the job."""

    @property
    def held(self) -> NDArray[np.int64]:
        """Of how many shards of each tensor there is a file."""
        counts = np.zeros(len(self.tensors), np.int64)
        for part in self.parts:
            np.add.at(counts, part.columns, 1)
        return counts


def rank_layout(runs: Mapping[int, Run], optimizer: int) -> RankLayout:
    """Lay the tensors of an optimizer on all ranks beside each other, by name: the first rank's, then what others add."""
    column_of: dict[tuple[str, int], int] = {}
    tensors: list[TensorInfo] = []
    shards: list[int] = []
    owner: dict[tuple[int, int], tuple[int, int]] = {}
    parts: dict[int, list[tuple[int, int]]] = {}
    copies: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for rank, run in sorted(runs.items()):
        infos = run.tensors_of(optimizer)
        cut = _cut(run.meta, optimizer, len(infos), rank)
        seen: Counter[str] = Counter()
        for place, info in enumerate(infos):
            column = column_of.setdefault((info.name, seen[info.name]), len(tensors))
            seen[info.name] += 1
            if column == len(tensors):
                tensors.append(info)
                shards.append(cut[place][0])
            key = (column, cut[place][1])
            if key in owner:
                first, first_place = owner[key]
                copies.setdefault((rank, first), []).append((place, column, first_place))
            else:
                owner[key] = rank, place
                parts.setdefault(rank, []).append((place, column))
    return RankLayout(
        tuple(tensors),
        np.array(shards, np.int64),
        tuple(Part(rank, *_columns(pairs)) for rank, pairs in parts.items()),
        tuple(Copy(rank, *_columns([t[:2] for t in found]), first, _column([t[2] for t in found]))
              for (rank, first), found in copies.items()),
        alike=all(count == 1 for count in shards) and set(parts) <= {0},
    )  # fmt: skip


def aligned(run: Run, kind: str, optimizer: int, steps: Places) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return a rank's norms at these steps, and at which of them it has any; ``ABSENT`` where there was no gradient."""
    matrix = np.full((len(steps), len(run.tensors_of(optimizer))), ABSENT)
    there = np.zeros(len(steps), bool)
    for at, raw in run.tensor_chunks(kind, optimizer, rows=len(steps), after=int(steps[0]) - 1):
        where = np.minimum(np.searchsorted(steps, at), len(steps) - 1)
        fits = steps[where] == at
        matrix[where[fits], : raw.shape[1]] = raw[fits, : matrix.shape[1]]  # more tensors may have come meanwhile
        there[where[fits]] = True
        if at[-1] >= steps[-1]:
            break
    return there, matrix


def _cut(meta: Mapping[str, Any], optimizer: int, count: int, rank: int) -> list[tuple[int, int]]:
    """Of each tensor, into how many shards it is cut, and which of them this rank has; a summand is nobody's copy."""
    cut = [(1, 0)] * count
    for group in meta.get("shards", {}).get(str(optimizer), ()):
        for place in group["tensors"]:
            if place < count:
                cut[place] = (0, rank) if group["shard"] is None else (group["shards"], group["shard"])
    return cut


def _columns(pairs: Sequence[tuple[int, int]]) -> tuple[Places, Places]:
    return _column([one for one, _ in pairs]), _column([other for _, other in pairs])


def _column(numbers: Sequence[int]) -> Places:
    return np.array(numbers, np.int64)
