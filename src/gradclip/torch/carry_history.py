"""What was learnt of blocks, carried over to another layout: where a block is still there it keeps its history."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gradclip.errors import StateError
from gradclip.thresholds import Threshold
from gradclip.torch.plan import Plan, Stage
from gradclip.torch.step import State

__all__ = ["block_axis", "carried_over"]


def carried_over(history: State, before: Plan, after: Plan) -> State:
    """Return the history of a method for other parameters than it was learnt with.

    Blocks of one tensor or of a part of it go with their tensor, the groups by their place, and what is no block's own stays.
    All others begin.

    Raises:
        StateError: a parameter has been given another shape, so that blocks with a history are no more.
    """
    if not history:
        return history
    parts = zip(before.stages, after.stages, before.split(history), strict=True)
    return after.join([_of_stage(state, old, new) if state else state for old, new, state in parts])


def _of_stage(state: State, before: Stage, after: Stage) -> State:
    threshold, like = after.clipping.threshold, next(iter(state.values()))
    moves = list(_moves(before, after))
    following: dict[str, Tensor] = {}
    for name, begun in threshold.init(like.new_zeros(after.layout.count)).items():
        axis = block_axis(threshold, name)
        if axis is None:
            following[name] = state[name] if state[name].shape == begun.shape else begun
            continue
        following[name] = begun.clone()
        for start, to, count in moves:
            following[name].narrow(axis, to, count).copy_(state[name].narrow(axis, start, count))
    return following


def _moves(before: Stage, after: Stage) -> Iterator[tuple[int, int, int]]:
    """Yield runs of blocks that are still there: the first one before, the first one now, and how many."""
    if before.clipping.scope.spans_tensors:
        yield 0, 0, min(before.layout.count, after.layout.count)
        return
    places = {id(parameter): i for i, parameter in enumerate(before.target.parameters)}
    for i, parameter in enumerate(after.target.parameters):
        was = places.get(id(parameter))
        start, to = None if was is None else before.layout.first[was], after.layout.first[i]
        if was is None or start is None or to is None:
            continue
        count = after.layout.partition.cells[i]
        if before.layout.partition.cells[was] != count:
            raise StateError(
                f"{after.clipping} has a history of blocks that are no more, since {after.target.names[i]!r} was given another "
                "shape: make a new Clipper, or detach() and attach() again, to begin a new history"
            )
        yield start, to, count


def block_axis(threshold: Threshold, name: str) -> int | None:
    """Return the axis of an array that counts blocks, None where it has none of them."""
    shapes = [threshold.init(torch.zeros(count, dtype=torch.float64, device="meta"))[name].shape for count in (2, 3)]
    return next((axis for axis, sizes in enumerate(zip(*shapes, strict=True)) if sizes[0] != sizes[1]), None)
