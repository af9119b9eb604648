"""Which shard of a tensor this process has, as far as tensors say so; nothing is asked of other ranks."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from typing import Any

from torch import Tensor

__all__ = ["shard_groups"]


def shard_groups(parameters: Sequence[Tensor | None]) -> list[dict[str, Any]]:
    """Return what the run file says of tensors that are cut over ranks; whole ones are left out.

    Returns:
        For tensors that are cut alike: into how many ``shards``, which ``shard`` of them this process has, and the places of
        the ``tensors``. Without a shard nobody knows: each rank has a summand, or a part of which nothing says where it is.
    """
    groups: dict[tuple[int, int | None], list[int]] = {}
    flat = _of_fsdp() if any(hasattr(p, "_fsdp_flattened") for p in parameters) else {}
    for place, parameter in enumerate(parameters):
        if parameter is None:
            continue
        shard = flat.get(id(parameter)) or _shard(parameter if parameter.grad is None else parameter.grad)
        if shard is None and hasattr(parameter, "ds_tensor"):  # DeepSpeed ZeRO: how it is cut is its own affair
            shard = (0, None)
        if shard is not None:
            groups.setdefault(shard, []).append(place)
    return [{"shards": count, "shard": shard, "tensors": places} for (count, shard), places in groups.items()]


def _of_fsdp() -> dict[int, tuple[int, int | None]]:
    """The same of parameters of ``FullyShardedDataParallel``, by identity: each unit knows over which ranks it is cut."""
    module = sys.modules["torch.distributed.fsdp.fully_sharded_data_parallel"]
    found: dict[int, tuple[int, int | None]] = {}
    for unit in [one for one in gc.get_objects() if type(one) is module.FullyShardedDataParallel]:
        handle = unit._handle
        if handle is not None and handle.uses_sharded_strategy and handle.process_group.size() > 1:
            shard = handle.process_group.size(), handle.process_group.rank()
            found |= {id(p): shard for p in (handle.flat_param, *(handle.flat_param._params or ()))}
    return found


def _shard(tensor: Any) -> tuple[int, int | None] | None:
    """Into how many shards a tensor is cut, and the number of this process's: those of replicas are the same."""
    placements = getattr(tensor, "placements", None)
    if placements is None:
        return None
    mesh = tensor.device_mesh
    cut = [dim for dim, placement in enumerate(placements) if not placement.is_replicate()]
    coordinate = mesh.get_coordinate()
    if not cut:
        return None
    if coordinate is None or any(placements[dim].is_partial() for dim in cut):
        return 0, None
    count, number = 1, 0
    for dim in cut:
        count, number = count * mesh.size(dim), number * mesh.size(dim) + coordinate[dim]
    return (count, number) if count > 1 else None
