"""The history of single elements as it is saved: tensor by tensor, each laid out over ranks as its gradient is.

So ``torch.distributed.checkpoint`` can bring it back under another number of ranks. The history of all other blocks is the same
on every rank, and saved as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gradclip.torch.carry_history import block_axis
from gradclip.torch.plan import Plan, Stage
from gradclip.torch.step import State

__all__ = ["by_element", "by_tensor", "saved_form", "used_form"]


def saved_form(plan: Plan, history: State) -> State:
    """Return the history of all stages as it is saved."""
    return plan.join([by_tensor(stage, own) for stage, own in zip(plan.stages, plan.split(history), strict=True)])


def used_form(plan: Plan, saved: State) -> State:
    """Return the history of all stages as it is used, from the form in which it was saved."""
    return plan.join([by_element(stage, own) for stage, own in zip(plan.stages, plan.split(saved), strict=True)])


def by_tensor(stage: Stage, state: State) -> State:
    """Return a history as it is saved; that of single elements under ``<array>.<parameter>``."""
    if not stage.clipping.scope.per_element:
        return state
    found: dict[str, Tensor] = {}
    for key, array in state.items():
        if block_axis(stage.clipping.threshold, key) is None:  # else it is the last one
            found[key] = array
            continue
        own = list(_own(stage))
        for (i, name, shape), piece in zip(own, array.split([prod(shape) for _, _, shape in own], -1), strict=True):
            found[f"{key}.{name}"] = _over_ranks(stage, i, piece.reshape((*array.shape[:-1], *shape)))
    return found


def by_element(stage: Stage, saved: State) -> State:
    """Return a history as it is used, from the form in which it was saved."""
    if not stage.clipping.scope.per_element or not saved:
        return saved
    found: dict[str, Tensor] = {}
    for key, array in stage.init().items():
        if block_axis(stage.clipping.threshold, key) is None:
            found[key] = saved[key]
            continue
        lead = array.shape[:-1]
        pieces = [_of_this_rank(stage, i, saved[f"{key}.{name}"]).reshape((*lead, -1)) for i, name, _ in _own(stage)]
        found[key] = torch.cat(pieces, -1) if pieces else torch.zeros_like(array, device="cpu")
    return found


def _own(stage: Stage) -> Iterator[tuple[int, str, tuple[int, ...]]]:
    """Number, name and shape of what this rank has of each tensor that is not left out."""
    shards = stage.shards
    for i, (shape, inside) in enumerate(zip(stage.layout.shapes, stage.layout.included, strict=True)):
        if not inside or (shards is not None and shards.parts[i].elsewhere):
            continue
        name = stage.target.names[i]
        if shards is not None and shards.parts[i].mesh is None and shards.parts[i].groups:  # cut by hand: no two are the same
            name = f"{name}.part{dist.get_rank(shards.parts[i].groups[0])}"
        yield i, name, shape


def _over_ranks(stage: Stage, i: int, local: Tensor) -> Tensor:
    """Return what all ranks have of a tensor's history as a DTensor, where the tensor is one."""
    if stage.shards is None or stage.shards.parts[i].mesh is None:
        return local
    from torch.distributed.tensor import DTensor

    part = stage.shards.parts[i]
    lead = local.shape[: local.dim() - len(part.whole)]
    shape = torch.Size((*lead, *part.whole))
    stride = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
    placements = part.behind(len(lead))
    return DTensor.from_local(local.contiguous(), part.mesh, placements, run_check=False, shape=shape, stride=stride)


def _of_this_rank(stage: Stage, i: int, saved: Any) -> Tensor:
    """Return this rank's part, whatever the layout in which it was saved."""
    part = None if stage.shards is None else stage.shards.parts[i]
    is_whole = not hasattr(saved, "device_mesh")
    if part is None or part.mesh is None:
        return saved if is_whole else saved.full_tensor()
    from torch.distributed.tensor import distribute_tensor

    placements = part.behind(saved.dim() - len(part.whole))
    if is_whole:
        return distribute_tensor(saved, part.mesh, placements, src_data_rank=None)._local_tensor
    if saved.device_mesh != part.mesh:
        return distribute_tensor(saved.full_tensor(), part.mesh, placements, src_data_rank=None)._local_tensor
    return saved.redistribute(part.mesh, placements)._local_tensor
