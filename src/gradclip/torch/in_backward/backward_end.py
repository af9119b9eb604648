"""Be told when a backward is over."""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["when_backward_ends"]

# No public way is as exact; PyTorch's own DDP and FSDP use the first. Both may be missing one day: then nobody is told.
_queue = getattr(getattr(torch.autograd.Variable, "_execution_engine", None), "queue_callback", None)
_node_under_way = getattr(torch._C, "_current_autograd_node", None)


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
