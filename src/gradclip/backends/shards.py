"""Which tensors are cut over which ranks, and which part of each this rank has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gradclip.backends.backend import Units
from gradclip.errors import TargetError

__all__ = ["Reduction", "Shards", "local_of", "reduced", "shards_of"]


@dataclass(frozen=True)
class Reduction:
    """One all-reduce of a step: the process groups that it runs over in turn (mostly one), and the tensors it is for."""

    groups: tuple[Any, ...]
    tensors: tuple[int, ...]


@dataclass(frozen=True)
class Shards:
    """How the tensors of a list are cut over ranks.

    Every rank builds the same: in the same order, with the same reductions, also where it holds nothing of a tensor.
    """

    reductions: tuple[Reduction, ...]
    wholes: tuple[tuple[int, ...], ...]
    """The shapes of whole tensors."""
    shapes: tuple[tuple[int, ...], ...]
    """Of this rank's parts."""
    offsets: tuple[tuple[int, ...], ...]
    """Where this rank's part of each tensor begins, along each of its axes."""
    _units: dict[Units, tuple[Units, Tensor]] = field(default_factory=dict, compare=False, repr=False)

    def local_units(self, units: Units) -> tuple[Units, Tensor]:
        """Return how this rank's parts are cut into output units, and each unit's number among those of whole tensors.

        Raises:
            TargetError: a tensor whose units are split by groups.
        """
        if units not in self._units:
            parts = [self._local_view(i, view) for i, view in enumerate(units.views)]
            starts = accumulate(units.counts, initial=0)
            numbers = [number + start for (_, number), start in zip(parts, starts, strict=False)]
            views = tuple(view for view, _ in parts)
            index = torch.cat(numbers) if numbers else torch.zeros(0, dtype=torch.long)
            self._units[units] = Units(views, tuple(view[0] * view[2] for view in views)), index
        return self._units[units]

    def _local_view(self, i: int, view: tuple[int, int, int, int]) -> tuple[tuple[int, int, int, int], Tensor]:
        whole, shape, (groups, before, count, _) = self.wholes[i], self.shapes[i], view
        if shape == whole:
            return view, torch.arange(groups * count)
        if groups > 1:
            raise TargetError(
                "a sharded weight of a transposed convolution with groups has output units on several ranks each: exclude it"
            )
        if len(shape) <= 1:
            return (1, 1, 1, prod(shape)), torch.zeros(1, dtype=torch.long)
        axis = next(a for a, n in enumerate(whole) if prod(whole[:a]) == before and n == count)
        own = (1, prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :]))
        return own, torch.arange(shape[axis]) + self.offsets[i][axis]


def local_of(tensor: Tensor | None) -> Tensor | None:
    """Return this rank's part of a tensor; a plain tensor is its own."""
    return tensor._local_tensor if tensor is not None and hasattr(tensor, "_local_tensor") else tensor


def reduced(grads: Sequence[Tensor | None], put: Callable[[int, Tensor | None], None]) -> list[Tensor | None]:
    """Return gradients of which no rank has a mere summand: those that are ``Partial`` are added up first, and put in place.

    Args:
        grads: None where there is none.
        put: ``put(i, grad)`` puts another tensor in place of gradient i.
    """
    from torch.distributed.tensor import Replicate

    done = list(grads)
    for i, grad in enumerate(grads):
        placements = getattr(grad, "placements", ())
        if any(placement.is_partial() for placement in placements):
            whole = grad.redistribute(placements=[Replicate() if p.is_partial() else p for p in placements])  # type: ignore[union-attr]
            put(i, whole)
            done[i] = whole
    return done


def shards_of(tensors: Sequence[Tensor], group: Any = None) -> Shards | None:
    """Look at how tensors are sharded; None where none is.

    Args:
        tensors: parameters (or gradients); DTensors say themselves how they are cut.
        group: the process group over whose ranks every plain tensor is cut, if they are.

    Raises:
        TargetError: a group that this rank is not in, or that was not initialised.
    """
    sharded = any(hasattr(t, "device_mesh") for t in tensors)
    if not sharded and group is None:
        return None
    process_group = _process_group(group)
    by_ranks: dict[tuple[Any, ...], tuple[tuple[Any, ...], list[int]]] = {}
    shapes, offsets = [], []
    for i, tensor in enumerate(tensors):
        shape, offset, groups = _placed(tensor, process_group)
        shapes.append(shape)
        offsets.append(offset)
        if groups:
            key = tuple(map(_ranks, groups))
            by_ranks.setdefault(key, (groups, []))[1].append(i)
    reductions = tuple(Reduction(groups, tuple(own)) for _, (groups, own) in sorted(by_ranks.items(), key=lambda item: item[0]))
    return Shards(reductions, tuple(tuple(t.shape) for t in tensors), tuple(shapes), tuple(offsets))


def _process_group(group: Any) -> Any:
    if group is None:
        return None
    if not dist.is_initialized():
        raise TargetError("group= needs an initialised process group: call torch.distributed.init_process_group first")
    if hasattr(group, "get_group"):
        if group.ndim != 1:
            raise TargetError(f"group= takes a mesh of one dimension, not {group.ndim}: write mesh['name of the dimension']")
        return group.get_group()
    if dist.get_rank(group) < 0:
        raise TargetError(f"rank {dist.get_rank()} is not in the group that was passed: every rank passes a group of its own")
    return group


@lru_cache(maxsize=256)
def _ranks(group: Any) -> tuple[int, ...]:
    return tuple(dist.get_process_group_ranks(group))


def _placed(tensor: Tensor, group: Any) -> tuple[tuple[int, ...], tuple[int, ...], tuple[Any, ...]]:
    """Return the shape of this rank's part, where it begins, and the process groups over which the tensor is cut."""
    if not hasattr(tensor, "device_mesh"):
        return tuple(tensor.shape), (0,) * tensor.dim(), () if group is None else (group,)
    mesh, placements = tensor.device_mesh, tuple(tensor.placements)  # type: ignore[attr-defined]
    return _placed_on(mesh, placements, tuple(tensor.shape), dist.group.WORLD)


@lru_cache(maxsize=4096)
def _placed_on(
    mesh: Any, placements: tuple[Any, ...], whole: tuple[int, ...], world: Any
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[Any, ...]]:
    """The same for a DTensor, worked out once in the life of a ``world``: the drop-in functions keep no layout."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    dims = [dim for dim, placement in enumerate(placements) if placement.is_shard() and mesh.size(dim) > 1]
    shape, offset = compute_local_shape_and_global_offset(whole, mesh, placements)
    return tuple(shape), tuple(offset), _groups(mesh, dims)


def _groups(mesh: Any, dims: Sequence[int]) -> tuple[Any, ...]:
    """Return one process group over these dimensions of a mesh where there is one, else one for each."""
    if not dims:
        return ()
    if len(dims) == mesh.ndim and mesh.size() == dist.get_world_size():
        return (dist.group.WORLD,)
    return tuple(mesh.get_group(dim) for dim in dims)
