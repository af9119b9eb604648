"""Hooks on gradients, each parameter for one user only, and on the end of a backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakIdKeyDictionary

from gradclip.errors import TargetError
from gradclip.torch.targets import Target

__all__ = ["check_model", "check_parameters", "forget", "register", "when_backward_ends"]

_hooked = WeakIdKeyDictionary()
"""The parameters whose gradients are clipped as they appear."""

# No public way is as exact; PyTorch's own DDP and FSDP use the first. Both may be missing one day: then nobody is told.
_queue = getattr(getattr(torch.autograd.Variable, "_execution_engine", None), "queue_callback", None)
_node_under_way = getattr(torch._C, "_current_autograd_node", None)


def check_model(target: object) -> None:
    """Refuse a wrapper whose gradients are not complete when they appear."""
    if isinstance(target, nn.parallel.DistributedDataParallel):
        raise TargetError("DistributedDataParallel averages gradients only after they have appeared: use gradclip.attach")


def check_parameters(found: Target) -> None:
    """Refuse a parameter that is computed, or whose gradient somebody clips already: it would go wrong without a word."""
    for name, parameter in zip(found.names, found.parameters, strict=True):
        if hasattr(parameter, "device_mesh"):
            raise TargetError(
                f"{name!r} is a DTensor, whose norm is known only when all ranks have its gradient: use gradclip.attach"
            )
        if not parameter.is_leaf:
            raise TargetError(f"{name!r} is computed from other tensors, so its gradient is not a parameter's: pass parameters")
        if parameter in _hooked:
            raise ValueError(f"the gradient of {name!r} is clipped as it appears already: call detach() on what does it")


def register(parameter: Tensor, hook: Callable[[Tensor], None]) -> RemovableHandle | None:
    """Register the hook, on a frozen parameter too: it is called from when it is thawed. Integers never have a gradient."""
    if not (parameter.is_floating_point() or parameter.is_complex()):
        return None
    frozen = not parameter.requires_grad
    try:
        return parameter.requires_grad_(True).register_post_accumulate_grad_hook(hook)
    finally:
        _hooked[parameter] = True
        if frozen:
            parameter.requires_grad_(False)


def forget(parameters: Iterable[Tensor]) -> None:
    """Let others hook on to these."""
    for parameter in parameters:
        _hooked.pop(parameter, None)


def when_backward_ends(call: Callable[[], None]) -> None:
    """Call something when the backward that is under way has ended; not if it is only a part of another.

    Re-entrant checkpointing runs a backward of its own for each segment, inside a node of the outer one.
    """
    if _queue is None or _node_under_way is None:
        return

    def at_end() -> None:
        if _node_under_way() is None:
            call()

    _queue(at_end)
