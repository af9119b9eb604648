"""Whether a ``backward`` is under way in this thread, so that what happens now is done by one of its hooks."""

from __future__ import annotations

import torch

__all__ = ["inside_backward"]

_graph_task = getattr(torch._C, "_current_graph_task_id", None)
"""No public function tells; without this one nothing is ever inside."""


def inside_backward() -> bool:
    """Whether this is called by a hook of a ``backward`` that is under way."""
    return _graph_task is not None and _graph_task() >= 0
