"""The one way gradients flow: measure, combine, limit, rescale, apply.

Everything that can be refused is refused before the first gradient is changed. The host is asked once a step (for the
policies that must know whether a gradient is finite), and under ``Propagate`` not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from gradclip.backends import torch_eager as backend
from gradclip.backends.torch_payload import Payload, payload_of
from gradclip.errors import NonFiniteGradientError, TargetError
from gradclip.nonfinite import Propagate, Raise, Skip, Zero
from gradclip.result import ClipResult
from gradclip.scopes import PerElement
from gradclip.thresholds import Bounds, Context
from gradclip.torch.plan import Plan

__all__ = ["State", "run"]

State: TypeAlias = Mapping[str, Tensor]
Replace: TypeAlias = Callable[[int, Tensor | None], None]


@dataclass(frozen=True)
class Decision:
    """What was measured and what follows from it; nothing has been changed yet."""

    cells: Tensor
    factors: Tensor
    limits: Tensor | float
    state: State
    bounds: tuple[float, float] | None = None


@torch.no_grad()
def run(
    plan: Plan, grads: Sequence[Tensor | None], weights: Sequence[Tensor] | None, state: State, step: int, put: Replace
) -> tuple[ClipResult, State]:
    """Clip ``grads`` in place and return what was done, with the threshold's next state.

    ``put(i, grad)`` replaces gradient i where it cannot be changed in place, or drops it (None).
    """
    payloads = _payloads(plan, grads, put)
    device = next((x.values.device for x in payloads if x.values is not None), torch.device("cpu"))
    decision = _decide(plan, payloads, weights, state, step, device)
    finite = decision.cells.isfinite().all()
    if isinstance(plan.clipping.nonfinite, Propagate) and device.type != "cpu":
        after, clipped = _apply(plan, payloads, decision, None)
        kept = {key: torch.where(finite, new, state.get(key, new)) for key, new in decision.state.items()}
        return _result(plan, decision, payloads, after, clipped, finite), kept
    host = torch.cat([finite.to(decision.factors.dtype).reshape(1), _asked(plan, decision)]).tolist()
    if not host[0]:
        return _on_nonfinite(plan, payloads, decision, weights, state, step, put, host[1:])
    after, clipped = _apply(plan, payloads, decision, host[1:])
    return _result(plan, decision, payloads, after, clipped, True), decision.state


def _payloads(plan: Plan, grads: Sequence[Tensor | None], put: Replace) -> list[Payload]:
    pairs = [payload_of(g, torch.Size(e.shape), e.name) for g, e in zip(grads, plan.target.entries, strict=True)]
    if isinstance(plan.clipping.threshold, Bounds) and not plan.clipping.threshold.symmetric:
        for (payload, _), name in zip(pairs, plan.target.names, strict=True):
            if payload.values is not None and payload.values.is_complex():
                raise TargetError(f"{name!r} is complex, which has no lower and upper bound: use value(0.5), one bound on |z|")
    for i, (_, instead) in enumerate(pairs):
        if instead is not None:
            put(i, instead)
    return [payload for payload, _ in pairs]


def _decide(
    plan: Plan, payloads: Sequence[Payload], weights: Sequence[Tensor] | None, state: State, step: int, device: torch.device
) -> Decision:
    threshold, rescale = plan.clipping.threshold, plan.clipping.rescale
    cells = backend.measure(payloads, plan.clipping.norm.p, plan.partition, device)
    if plan.clamps:
        low, high, state = threshold.bounds(cells, state, Context(step))
        return Decision(cells, cells.new_zeros(0), high, state, (float(low), float(high)))
    weight_norms = None
    if threshold.needs_weights:
        if weights is None:
            raise TargetError(f"{plan.clipping} needs the weights: pass parameters, or the weights with params=...")
        weight_payloads = [
            Payload(None if x.values is None else w.detach(), w.shape) for w, x in zip(weights, payloads, strict=True)
        ]
        weight_cells = backend.measure(weight_payloads, plan.clipping.norm.p, plan.partition, device)
        weight_norms = plan.block_norms(weight_cells, weight_payloads)
    norms = plan.block_norms(cells, payloads)
    if threshold.stateful and not state:
        state = threshold.init(norms)
    limits, state = threshold.limits(norms, state, Context(step, weight_norms))
    return Decision(cells, rescale.factors(norms, limits), limits, state)


def _asked(plan: Plan, decision: Decision) -> Tensor:
    """What the host has to know to apply: the factor of each block, or which tensors have a factor other than 1."""
    if plan.clamps:
        return decision.cells
    if plan.per_tensor:
        return decision.factors
    changed = [(factors != 1).any().reshape(1) for factors in plan.split(decision.factors)]
    return torch.cat([decision.factors[:0], *changed])


def _apply(
    plan: Plan, payloads: Sequence[Payload], decision: Decision, host: Sequence[float] | None
) -> tuple[Tensor, Tensor | bool]:
    """Change the gradients; return the norm of every cell afterwards, and whether anything was changed."""
    if plan.clamps:
        return _clamp(plan, payloads, decision, host)
    if plan.per_tensor:
        after = decision.cells * plan.cell_factors(decision.factors)
        if host is None:
            backend.scale_tensors(payloads, plan.cell_factors(decision.factors))
            return after, (decision.factors != 1).any()
        blocks = plan.partition.first
        backend.scale_tensors(payloads, [1.0 if b is None else host[b] for b in blocks])
        return after, any(factor != 1 for factor in host)
    touched = [True] * len(payloads) if host is None else [bool(flag) for flag in host]
    changing = [p if t else Payload(None, p.shape) for p, t in zip(payloads, touched, strict=True)]
    if isinstance(plan.clipping.scope, PerElement):
        backend.scale_elements(changing, plan.split(decision.factors))
        return backend.measure(payloads, plan.clipping.norm.p, plan.partition, decision.cells.device), any(touched)
    backend.scale_units(changing, plan.split(decision.factors), plan.partition)
    return decision.cells * plan.cell_factors(decision.factors), any(touched)


def _clamp(
    plan: Plan, payloads: Sequence[Payload], decision: Decision, host: Sequence[float] | None
) -> tuple[Tensor, Tensor | bool]:
    assert decision.bounds is not None
    low, high = decision.bounds
    inside = [b is not None for b in plan.partition.first]
    safe = min(-low, high)
    over = [i and (host is None or not n <= safe) for i, n in zip(inside, host or [0.0] * len(inside), strict=True)]
    changing = [p for p, o in zip(payloads, over, strict=True) if o]
    asymmetric = -low != high
    clipped: Tensor | bool = any(over)
    if host is None or asymmetric:
        clipped = backend.exceeds(changing, low, high, decision.cells.device)
    backend.clamp(changing, low, high)
    if asymmetric:
        return backend.measure(payloads, plan.clipping.norm.p, plan.partition, decision.cells.device), clipped
    kept = plan.included_cells(decision.cells)
    return torch.where(kept, decision.cells.clamp(max=high), decision.cells), clipped


def _on_nonfinite(
    plan: Plan,
    payloads: Sequence[Payload],
    decision: Decision,
    weights: Sequence[Tensor] | None,
    state: State,
    step: int,
    put: Replace,
    host: Sequence[float],
) -> tuple[ClipResult, State]:
    """Follow the policy; the threshold's state stays what it was."""
    bad = (~plan.tensor_cells(decision.cells).isfinite()).tolist()
    names = tuple(name for name, is_bad in zip(plan.target.names, bad, strict=True) if is_bad)
    match plan.clipping.nonfinite:
        case Raise():
            raise NonFiniteGradientError(names)
        case Skip():
            for i in range(len(payloads)):
                put(i, None)
            result = _result(plan, decision, payloads, torch.zeros_like(decision.cells), False, False)
            return replace(result, nonfinite_names=names, skipped=True), state
        case Zero():
            for payload, is_bad in zip(payloads, bad, strict=True):
                if is_bad and payload.values is not None:
                    payload.values.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
            decision = _decide(plan, payloads, weights, state, step, decision.cells.device)
            after, _ = _apply(plan, payloads, decision, _asked(plan, decision).tolist())
            result = _result(plan, decision, payloads, after, True, False)
            return replace(result, nonfinite_names=names), decision.state
    after, clipped = _apply(plan, payloads, decision, host)
    return replace(_result(plan, decision, payloads, after, clipped, False), nonfinite_names=names), state


def _result(
    plan: Plan, decision: Decision, payloads: Sequence[Payload], after: Tensor, clipped: Tensor | bool, finite: Tensor | bool
) -> ClipResult:
    sizes = plan.sizes(payloads) if plan.clipping.norm.mean else None
    return ClipResult(
        plan.target.names,
        decision.limits,
        decision.factors,
        clipped,
        finite,
        _cells=decision.cells,
        _cells_after=after,
        _total=lambda cells: plan.total(cells, sizes),
        _by_tensor=lambda cells: plan.by_tensor(cells, sizes),
    )
