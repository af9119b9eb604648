"""Carry out a decision: the one place where gradients change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from gradclip.backends import torch_eager as backend
from gradclip.backends.torch_payload import Payload
from gradclip.rescales import Clamp, Drop
from gradclip.scopes import PerElement
from gradclip.torch.deciding import Decision, Step

__all__ = ["Applied", "apply", "carried"]

Applied: TypeAlias = tuple[Tensor, Tensor | bool]
"""The norm of every cell afterwards, and whether anything was changed."""


def apply(step: Step, decision: Decision, host: Sequence[float] | None) -> Applied:
    """Change the gradients in place.

    Args:
        step: the gradients.
        decision: what is to be done.
        host: what the host was told (``Decision.asked``), so that what needs no change is not touched; None to multiply
            everything without asking.
    """
    if step.plan.clamps:
        return _clamp(step, decision, host)
    if isinstance(step.plan.clipping.rescale, Clamp):
        return _clamp_tensors(step, decision, host)
    if step.plan.per_tensor:
        return _scale_tensors(step, decision, host)
    return _scale_parts(step, decision, host)


def _scale_tensors(step: Step, decision: Decision, host: Sequence[float] | None) -> Applied:
    if host is not None and all(factor == 1 for factor in host):
        return decision.cells, False
    factors = step.plan.cell_factors(decision.factors)
    after = decision.cells * factors
    if host is None:
        if not carried(step, decision.factors):
            backend.scale_tensors(step.payloads, factors)
        return after, (decision.factors != 1).any()
    if not carried(step, host):
        backend.scale_tensors(step.payloads, [1.0 if block is None else host[block] for block in step.plan.partition.first])
    return after, True


def carried(step: Step, factors: Tensor | Sequence[float], finite: Tensor | None = None) -> bool:
    """Hand one factor that all gradients share to somebody who multiplies by it anyway; return False where there is nobody.

    Args:
        step: the gradients.
        factors: of the blocks.
        finite: whether every gradient is, where that has not been asked: the step is to be dropped if not.
    """
    partition, carry = step.plan.partition, step.known.carry
    alone = partition.count == 1 and partition.complete and not isinstance(step.plan.clipping.rescale, Drop)
    return alone and carry is not None and carry(factors[0], finite)


def _scale_parts(step: Step, decision: Decision, host: Sequence[float] | None) -> Applied:
    """Multiply units or elements of the tensors that have any factor other than 1."""
    touched = [True] * len(step.payloads) if host is None else [bool(flag) for flag in host]
    changing = [p if t else Payload(None, p.shape) for p, t in zip(step.payloads, touched, strict=True)]
    factors = step.plan.split(decision.factors)
    if isinstance(step.plan.clipping.scope, PerElement):
        backend.scale_elements(changing, factors)
        return step.measure(), any(touched)
    backend.scale_units(changing, factors, step.plan.partition)
    return decision.cells * step.plan.cell_factors(decision.factors), any(touched)


def _clamp(step: Step, decision: Decision, host: Sequence[float] | None) -> Applied:
    assert decision.bounds is not None
    low, high = decision.bounds
    inside = [block is not None for block in step.plan.partition.first]
    safe = min(-low, high)
    over = [i and (host is None or not n <= safe) for i, n in zip(inside, host or [0.0] * len(inside), strict=True)]
    changing = [p for p, o in zip(step.payloads, over, strict=True) if o]
    asymmetric = -low != high
    clipped: Tensor | bool = any(over)
    if host is None or asymmetric:
        clipped = backend.exceeds(changing, low, high, step.device)
    backend.clamp(changing, low, high)
    if asymmetric:
        return step.measure(), clipped
    kept = step.plan.included_cells(decision.cells)
    return torch.where(kept, decision.cells.clamp(max=high), decision.cells), clipped


def _clamp_tensors(step: Step, decision: Decision, host: Sequence[float] | None) -> Applied:
    """Clamp the elements of every tensor to the limit of its block; the host was told those that bind."""
    inside = step.plan.included_cells(decision.cells)
    limits = torch.where(inside, step.plan.cell_factors(decision.binding), math.inf)
    after = torch.minimum(decision.cells, limits)
    if host is None:
        backend.clamp_each(step.payloads, limits)
        return after, (limits < math.inf).any()
    own = [math.inf if block is None else host[block] for block in step.plan.partition.first]
    for payload, bound in zip(step.payloads, own, strict=True):
        if bound < math.inf:
            backend.clamp([payload], -bound, bound)
    return after, min(own, default=math.inf) < math.inf
