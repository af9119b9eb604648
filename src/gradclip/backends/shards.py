"""Which tensors are cut over which ranks, and which part of each this rank has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import prod
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor

from gradclip._cached import cached_property
from gradclip.backends.agreement import agree
from gradclip.backends.backend import SparseEntries, Units
from gradclip.backends.values import prepared
from gradclip.errors import TargetError

__all__ = ["Across", "Part", "Reduction", "Shards", "local_of", "shards_of", "shards_seen", "summed"]


@dataclass(frozen=True)
class Across:
    """What the ranks of a group that a user passed have of a list of tensors.

    Either each has a part of every plain tensor, or (``stages``) each has some of the tensors.
    """

    group: Any
    sizes: tuple[int, ...]
    """How many elements each tensor has on all ranks together."""
    stages: bool = False
    counted: tuple[bool, ...] = ()
    """Which tensors are measured on this rank: one that several stages have is measured on the first of them."""


@dataclass(frozen=True)
class Part:
    """What this rank has of one tensor."""

    whole: tuple[int, ...]
    """The shape of the whole tensor; of a plain tensor that is cut by hand, this rank's, since nobody knows."""
    shape: tuple[int, ...]
    size: int
    """How many elements the whole tensor has."""
    mesh: Any = None
    placements: tuple[Any, ...] = ()
    """Of a DTensor, and of its gradient once that is no mere summand."""
    groups: tuple[Any, ...] = ()
    """The process groups over which it is cut."""
    elsewhere: bool = False
    """Other ranks have it."""

    def rows(self, axis: int) -> Tensor:
        """Return where this rank's slices along an axis are in the whole tensor."""
        rows = torch.arange(self.whole[axis])
        if self.mesh is None:
            return rows
        from torch.distributed.tensor import Replicate, distribute_tensor

        along = [_on_axis(p, 0) if _dim(p) == axis else Replicate() for p in self.placements]
        return distribute_tensor(rows, self.mesh, along, src_data_rank=None)._local_tensor.cpu()  # which communicates nothing

    def behind(self, axes: int) -> list[Any]:
        """Return the placements of a tensor that has so many more axes in front of its own."""
        return [p if (dim := _dim(p)) is None else _on_axis(p, dim + axes) for p in self.placements]


@dataclass(frozen=True)
class Reduction:
    """One all-reduce of a step: the process group that it runs over, and the tensors it is for."""

    group: Any
    tensors: tuple[int, ...]


@dataclass(frozen=True)
class Shards:
    """How the tensors of a list are cut over ranks.

    Every rank builds the same: in the same order, with the same reductions, also where it holds nothing of a tensor.
    """

    parts: tuple[Part, ...]
    reductions: tuple[Reduction, ...]
    device: torch.device
    """Where the ranks reduce."""
    wide: bool
    """Some gradient may be float64, whose powers may be too large or too small for a float64."""
    across: Across | None = None
    _units: dict[Units, tuple[Units, Tensor]] = field(default_factory=dict, compare=False, repr=False)
    _tensor_of: dict[Units | None, Tensor] = field(default_factory=dict, compare=False, repr=False)
    _places: dict[tuple[Units | None, int], list[tuple[Any, Tensor | slice]]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @cached_property
    def counted(self) -> Tensor | None:
        """Which tensors are measured on this rank; None for all."""
        counted = () if self.across is None else self.across.counted
        return None if all(counted) else torch.tensor(counted, device=self.device)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of this rank's parts."""
        return tuple(part.shape for part in self.parts)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many elements whole tensors have."""
        return tuple(part.size for part in self.parts)

    def values(
        self, grads: Sequence[Tensor | None], names: Sequence[str], put: Callable[[int, Tensor | None], None]
    ) -> tuple[list[Tensor | None], dict[int, SparseEntries]]:
        """Return what is worked on of each gradient, as :func:`prepared` does: this rank's parts of it.

        A gradient of which every rank has a mere summand (``Partial``) is added up first, and any that is not laid out as its
        parameter is laid out so; that is put in its place.

        Raises:
            TargetError: a plain gradient of a DTensor, or a DTensor where a plain one is expected.
        """
        placed = list(grads)
        for i, (part, grad) in enumerate(zip(self.parts, grads, strict=True)):
            if grad is None:
                continue
            if (part.mesh is None) == hasattr(grad, "device_mesh"):
                kinds = ("a DTensor", "a plain tensor") if part.mesh is None else ("a plain tensor", "a DTensor")
                raise TargetError(
                    f"the gradient of {names[i]!r} is {kinds[0]}, but {kinds[1]} is expected, as its parameter is"
                )
            if part.mesh is not None and tuple(grad.placements) != part.placements:  # type: ignore[attr-defined]
                placed[i] = grad.redistribute(part.mesh, part.placements)  # type: ignore[attr-defined]
                put(i, placed[i])

        def put_part(i: int, new: Tensor | None) -> None:
            grad = placed[i]
            if new is not None and hasattr(grad, "device_mesh"):
                new = _like(new, grad)
            put(i, new)

        return prepared([local_of(grad) for grad in placed], names, put_part)

    def local_units(self, units: Units) -> tuple[Units, Tensor]:
        """Return how this rank's parts are cut into output units, and each unit's number among those of whole tensors.

        Raises:
            TargetError: a tensor whose units are split by groups, or a plain one that is cut by hand.
        """
        if units not in self._units:
            parts = [_local_view(part, view) for part, view in zip(self.parts, units.views, strict=True)]
            starts = accumulate(units.counts, initial=0)
            numbers = [number + start for (_, number), start in zip(parts, starts, strict=False)]
            views = tuple(view for view, _ in parts)
            index = torch.cat(numbers) if numbers else torch.zeros(0, dtype=torch.long)
            self._units[units] = Units(views, tuple(view[0] * view[2] for view in views)), index
        return self._units[units]

    def tensor_of(self, units: Units | None) -> Tensor:
        """Return which tensor each cell of whole tensors belongs to."""
        if units not in self._tensor_of:
            counts = [1] * len(self.parts) if units is None else list(units.counts)
            each = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.long))
            self._tensor_of[units] = each.to(self.device)
        return self._tensor_of[units]

    def places(self, units: Units | None, lists: int) -> list[tuple[Any, Tensor | slice]]:
        """Return each group and the places of what it reduces: among the cells of so many lists, and a number a tensor."""
        if (units, lists) not in self._places:
            tensor_of, count = self.tensor_of(units), len(self.parts)
            found: list[tuple[Any, Tensor | slice]] = []
            for reduction in self.reductions:
                chosen = torch.zeros(count, dtype=torch.bool, device=self.device)
                chosen[list(reduction.tensors)] = True
                mask = torch.cat([chosen[tensor_of]] * lists + [chosen])
                found.append((reduction.group, slice(None) if len(reduction.tensors) == count else mask.nonzero()[:, 0]))
            self._places[units, lists] = found
        return self._places[units, lists]


def local_of(tensor: Tensor | None) -> Tensor | None:
    """Return this rank's part of a tensor; a plain tensor is its own, and of one without memory there is none."""
    if tensor is None or tensor.is_meta:
        return None
    local = getattr(tensor, "_local_tensor", tensor)
    return local.wait() if hasattr(local, "wait") else local  # of a collective that is still under way


def summed(grad: Tensor | None) -> Tensor | None:
    """Return a gradient of which no rank has a mere summand."""
    if not any(placement.is_partial() for placement in getattr(grad, "placements", ())):
        return grad
    return grad.redistribute(grad.device_mesh, _without_partial(grad.placements))  # type: ignore[union-attr]


def shards_seen(tensors: Sequence[Tensor], method: str) -> Shards | None:
    """Return the same as :func:`shards_of`; what was looked at lately is not looked at again."""
    key = method, *((getattr(t, "device_mesh", None), getattr(t, "placements", None), t.shape, t.dtype) for t in tensors)
    known = _seen.setdefault(dist.group.WORLD, {})
    if key not in known:
        if len(known) == _MOST:
            known.clear()
        known[key] = shards_of(tensors, method)
    return known[key]


_MOST = 16
_seen: WeakKeyDictionary[Any, dict[Any, Shards | None]] = WeakKeyDictionary()


def shards_of(
    tensors: Sequence[Tensor], method: str, names: Sequence[str] | None = None, across: Across | None = None
) -> Shards | None:
    """Look at how tensors are sharded, and see that all ranks see the same; None where none is.

    Args:
        tensors: parameters (or gradients); DTensors say themselves how they are cut.
        method: what is to be done with them, for the other ranks to compare.
        names: of the tensors.
        across: what the ranks of the group that the user passed have, if one was passed.

    Raises:
        TargetError: the ranks see something differently; on every rank.
    """
    if across is None and not any(hasattr(t, "device_mesh") for t in tensors):
        return None
    parts = tuple(_part(i, tensor, across) for i, tensor in enumerate(tensors))
    names = names or [str(i) for i in range(len(tensors))]
    own = [(n, p, t) for n, p, t in zip(names, parts, tensors, strict=True) if not p.elsewhere]
    meshes = dict.fromkeys(part.mesh for part in parts if part.mesh is not None)
    agree(_groups_of(meshes), method, [_line(*each) for each in own])
    over: dict[Any, list[int]] = {}
    for i, part in enumerate(parts):
        for group in part.groups:
            over.setdefault(group, []).append(i)
    if across is not None and across.stages:  # last: what a stage has reduced over its own mesh
        over.pop(across.group, None)
        over[across.group] = list(range(len(parts)))
    reductions = tuple(Reduction(group, tuple(positions)) for group, positions in over.items())
    wide = any(t.dtype in (torch.float64, torch.complex128) for t in tensors)
    return Shards(parts, reductions, _device(meshes, tensors), wide, across)


def _part(i: int, tensor: Tensor, across: Across | None) -> Part:
    shape = tuple(tensor.shape)
    if not hasattr(tensor, "device_mesh"):
        if across is None:
            return Part(shape, shape, prod(shape))
        if not across.stages:
            return Part(shape, shape, across.sizes[i], groups=(across.group,))
        elsewhere = tensor.is_meta and not across.counted[i]
        return Part(shape, (0,) if elsewhere else shape, prod(shape), elsewhere=elsewhere)
    mesh: Any = tensor.device_mesh
    placements = _without_partial(tensor.placements)  # type: ignore[attr-defined]
    cut = [dim for dim, p in enumerate(placements) if not p.is_replicate() and mesh.size(dim) > 1]
    local = tuple(tensor._local_tensor.shape)  # type: ignore[attr-defined]
    return Part(shape, local, prod(shape), mesh, placements, _groups(mesh, cut))


def _without_partial(placements: Sequence[Any]) -> tuple[Any, ...]:
    from torch.distributed.tensor import Replicate

    return tuple(Replicate() if placement.is_partial() else placement for placement in placements)


def _groups(mesh: Any, dims: Sequence[int]) -> tuple[Any, ...]:
    """Return one process group over these dimensions of a mesh where there is one, else one for each."""
    if dims and prod(mesh.size(dim) for dim in dims) == dist.get_world_size():
        return (dist.group.WORLD,)
    return tuple(mesh.get_group(dim) for dim in dims)


def _groups_of(meshes: Sequence[Any] | dict[Any, None]) -> list[tuple[Any, object]]:
    """Return the process groups of all ranks of these meshes, each with the meshes that it is for."""
    found: dict[Any, list[object]] = {}
    for mesh in meshes:
        for group in _groups(mesh, [dim for dim in range(mesh.ndim) if mesh.size(dim) > 1]):
            found.setdefault(group, []).append(mesh.mesh.tolist())
    return list(found.items())


def _line(name: str, part: Part, tensor: Tensor) -> str:
    """Return what all ranks have to see alike of a tensor."""
    text = f"{name!r} of shape {part.whole}, {tensor.dtype}"
    if part.mesh is None:
        return text
    return f"{text}, {' '.join(map(str, part.placements))} on a mesh {tuple(part.mesh.shape)}"


def _device(meshes: dict[Any, None], tensors: Sequence[Tensor]) -> torch.device:
    for mesh in meshes:
        if mesh.device_type != "cpu":
            return torch.device(mesh.device_type, torch.get_device_module(mesh.device_type).current_device())
        return torch.device("cpu")
    return next((t.device for t in tensors if not t.is_meta), torch.device("cpu"))


def _local_view(part: Part, view: tuple[int, int, int, int]) -> tuple[tuple[int, int, int, int], Tensor]:
    whole, shape, (groups, before, count, _) = part.whole, part.shape, view
    if part.elsewhere:
        return (1, 1, 0, 1), torch.zeros(0, dtype=torch.long)
    if not part.groups:
        return view, torch.arange(groups * count)
    if part.mesh is None:
        raise TargetError(
            "which output units a plain tensor has that was cut by hand, nobody says: use a method that does not go by units, "
            "or DTensor.from_local(...)"
        )
    if groups > 1:
        raise TargetError(
            "a sharded weight of a transposed convolution with groups has output units on several ranks each: exclude it"
        )
    if len(shape) <= 1:
        return (1, 1, 1, prod(shape)), torch.zeros(1, dtype=torch.long)
    axis = next(a for a, n in enumerate(whole) if prod(whole[:a]) == before and n == count)
    return (1, prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])), part.rows(axis)


def _dim(placement: Any) -> int | None:
    """The axis along which a placement cuts, None for one that does not."""
    return getattr(placement, "dim", None)


def _on_axis(placement: Any, axis: int) -> Any:
    """The same cut along another axis."""
    from torch.distributed.tensor import Shard

    if placement.is_shard():
        return Shard(axis)
    return type(placement)(axis, split_factor=placement.split_factor)  # FSDP2's shards of tensor parallel ones


def _like(local: Tensor, whole: Any) -> Tensor:
    """Return a DTensor with this local tensor, laid out as another."""
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        local, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )
