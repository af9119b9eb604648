"""One result of a step whose gradients were clipped one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradclip.result import ClipResult
from gradclip.torch.in_backward.one_by_one import OneByOne, Results, stand_ins
from gradclip.torch.plan import Plan

__all__ = ["cells_of_all", "dropped", "joined"]


def joined(plan: Plan, way: OneByOne, results: Results, number: int) -> ClipResult:
    """End a step and return what was done to all of its gradients; 0 is the norm of those that did not appear."""
    before = cells_of_all(plan, {i: result._cells for i, result in results.items()})
    after = cells_of_all(plan, {i: result._cells_after for i, result in results.items()})
    limits, factors = way.end_step(results, before, after, number)
    present = [i in results for i in range(len(plan.target.parameters))]
    sizes = plan.sizes(stand_ins(plan, present)) if plan.clipping.norm.mean else None
    return ClipResult(
        plan.target.names,
        limits,
        factors,
        _any([result.clipped for result in results.values()], before.device),
        _all([result.finite for result in results.values()], before.device),
        tuple(dict.fromkeys(name for i in sorted(results) for name in results[i].nonfinite_names)),
        all(result.skipped for result in results.values()),
        _cells=before,
        _cells_after=after,
        _total=lambda cells: plan.total(cells, sizes),
        _by_tensor=lambda cells: plan.by_tensor(cells, sizes),
    )


def dropped(name: str, cells: Tensor) -> ClipResult:
    """Return the result for one gradient that goes with a step that is dropped; ``cells`` are its norms."""
    bad = () if bool(cells.isfinite().all()) else (name,)
    nothing = torch.zeros_like(cells)
    return ClipResult((name,), float("inf"), nothing, False, not bad, bad, True, _cells=cells, _cells_after=nothing)


def cells_of_all(plan: Plan, cells: Mapping[int, Tensor]) -> Tensor:
    """Return the norms of the cells of all parameters as one vector, 0 where a parameter has none."""
    like = next(iter(cells.values()))
    counts = [1] * len(plan.partition.cells) if plan.partition.views is None else plan.partition.cells
    return torch.cat([cells[i].to(like) if i in cells else like.new_zeros(count) for i, count in enumerate(counts)])


def _any(flags: list[Any], device: torch.device) -> Tensor | bool:
    if not any(isinstance(flag, Tensor) for flag in flags):
        return any(flags)
    return torch.stack([torch.as_tensor(flag, device=device) for flag in flags]).any()


def _all(flags: list[Any], device: torch.device) -> Tensor | bool:
    if not any(isinstance(flag, Tensor) for flag in flags):
        return all(flags)
    return torch.stack([torch.as_tensor(flag, device=device) for flag in flags]).all()
