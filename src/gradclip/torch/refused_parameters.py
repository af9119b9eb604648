"""Parameters that cannot be clipped as they are: parts of larger ones, of which nobody has said how, and lazy ones."""

from __future__ import annotations

import gc
import sys
from typing import Any

import torch
from torch import Tensor, nn

from gradclip.errors import TargetError

__all__ = ["check_optimizer", "check_parameter"]

_LOCAL = "is the local part of a DTensor, by whose own norm nothing must be clipped: pass the DTensor, which says how it is cut"
_FSDP = (
    "is sharded by FullyShardedDataParallel: call model.clip_grad_norm_(max_norm) before step(), or pass group=the process "
    "group over which it is sharded"
)
_DEEPSPEED = 'is partitioned by DeepSpeed ZeRO: set "gradient_clipping" in its configuration'
_LAZY = "belongs to a lazy layer and has no shape yet: run one batch through the model first"


def check_parameter(name: str, parameter: Tensor, group: Any = None) -> None:
    """Refuse a parameter that is a part of a larger one, or has no shape yet.

    Args:
        name: of the parameter.
        parameter: the parameter.
        group: over whose ranks plain tensors are cut, if that was said.

    Raises:
        TargetError: what it is, and what to do.
    """
    if type(parameter) is nn.Parameter and not vars(parameter):  # quick: nothing is noted on it
        return
    for what, applies in (
        (_LAZY, nn.parameter.is_lazy(parameter)),
        (_LOCAL, type(parameter.grad_fn).__name__.endswith("ToTorchTensorBackward")),
        (_FSDP, group is None and _is_flat_shard(parameter)),
        (_DEEPSPEED, hasattr(parameter, "ds_tensor")),
    ):
        if applies:
            raise TargetError(f"{name!r} {what}")


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Refuse the optimizer inside a ``ZeroRedundancyOptimizer``, which has the parameters of one rank alone.

    Raises:
        TargetError: attach to the outer one, which has all of them.
    """
    module = sys.modules.get("torch.distributed.optim.zero_redundancy_optimizer")
    if module is None or _ranks() == 1:
        return
    for owner in gc.get_objects():
        if issubclass(type(owner), module.ZeroRedundancyOptimizer) and vars(owner).get("optim") is optimizer:
            raise TargetError(
                "this is the optimizer inside a ZeroRedundancyOptimizer, with the parameters of one rank, and would be clipped "
                "by their norm alone: attach to the ZeroRedundancyOptimizer itself"
            )


def _is_flat_shard(parameter: Any) -> bool:
    """Whether FSDP1 keeps only this rank's part of a parameter; with ``NO_SHARD``, or alone, it is whole."""
    if not getattr(parameter, "_fsdp_flattened", False) or _ranks() == 1:
        return False
    return bool(parameter.size() != getattr(parameter, "_unpadded_unsharded_size", None))


def _ranks() -> int:
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
