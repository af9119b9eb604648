"""The one way gradients flow: measure, combine, limit, rescale, apply; and what happens to a NaN or Inf.

Everything that can be refused is refused before the first gradient is changed. The host is asked once a step (for the
policies that must know whether a gradient is finite); on an accelerator not at all under ``Propagate``, nor under ``Skip``
where a fused optimizer takes over both the factor and the skip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor

from gradclip.backends import kernel, torch_triton
from gradclip.backends.torch_payload import DevicePayloads, Payload, PlainPayloads, payload_of
from gradclip.errors import NonFiniteGradientError, TargetError
from gradclip.nonfinite import Propagate, Raise, Skip, Zero
from gradclip.rescales import Drop
from gradclip.result import ClipResult
from gradclip.thresholds import Bounds
from gradclip.torch.applying import Applied, apply, carried
from gradclip.torch.at_once import clip_at_once
from gradclip.torch.deciding import Decision, Known, State, Step, decide
from gradclip.torch.plan import Plan

__all__ = ["run"]

Put: TypeAlias = Callable[[int, Tensor | None], None]


@torch.no_grad()
def run(plan: Plan, grads: Sequence[Tensor | None], put: Put, known: Known) -> tuple[ClipResult, State]:
    """Clip gradients in place and return what was done, with the threshold's next state.

    Args:
        plan: the method, laid out over the parameters.
        grads: the gradient of each, None where there is none.
        put: ``put(i, grad)`` replaces gradient i where it cannot be changed in place, or drops it (None).
        known: weights, learning rates, state and step number.
    """
    if plan.goes_by_shape:
        plan.target.check_shapes(grads, known.weights if plan.clipping.threshold.needs_weights else None)
    step = Step(plan, _payloads(plan, grads, put), known)
    at_once = clip_at_once(step)
    if at_once is not None:
        if not bool(at_once[0].cells.isfinite().all()):
            return _on_nonfinite(step, at_once[0], (), put)
        return _result(step, *at_once, True), at_once[0].state
    decision = decide(step)
    host = decision.host
    if host is None:
        finite = decision.cells.isfinite().all()
        done = _without_host(step, decision, finite) if _on_accelerator(step) else None
        if done is not None:
            return done
        is_finite, *host = torch.cat([finite.to(decision.cells.dtype).reshape(1), decision.asked(plan)]).tolist()
        if not is_finite:
            return _on_nonfinite(step, decision, host, put)
    applied = apply(step, decision, host)
    if isinstance(plan.clipping.rescale, Drop) and plan.per_tensor:
        _drop(plan, host, put)
    return _result(step, decision, applied, True), decision.state


def _on_accelerator(step: Step) -> bool:
    """Whether asking the host would have it wait."""
    return step.device.type != "cpu"


def _without_host(step: Step, decision: Decision, finite: Tensor) -> tuple[ClipResult, State] | None:
    """Do all of it on the device, where the policy bears that; None where it does not, and nothing has been changed."""
    policy = step.plan.clipping.nonfinite
    skipped: Tensor | bool = False
    if isinstance(policy, Propagate):
        applied = apply(step, decision, None)
    elif isinstance(policy, Skip) and carried(step, decision.factors, finite):  # the optimizer drops the step itself
        after = torch.where(finite, decision.cells * step.plan.cell_factors(decision.factors), 0.0)
        applied, skipped = (after, (decision.factors != 1).any() & finite), ~finite
    else:
        return None
    before = step.known.state or step.plan.clipping.threshold.init(torch.zeros_like(decision.factors))
    kept = {key: torch.where(finite, new, before.get(key, new)) for key, new in decision.state.items()}
    return replace(_result(step, decision, applied, finite), skipped=skipped), kept


def _payloads(plan: Plan, grads: Sequence[Tensor | None], put: Put) -> Sequence[Payload]:
    on_device = torch_triton.describe(grads)
    if on_device is not None and not on_device.left_out:
        return DevicePayloads(on_device, [e.shape for e in plan.target.entries])
    table = kernel.describe(grads)
    if table is not None and not table.left_out:  # plain real tensors: nothing to prepare, nothing to refuse
        return PlainPayloads(table, [e.shape for e in plan.target.entries])
    pairs = [payload_of(g, torch.Size(e.shape), e.name) for g, e in zip(grads, plan.target.entries, strict=True)]
    if isinstance(plan.clipping.threshold, Bounds) and not plan.clipping.threshold.symmetric:
        for (payload, _), name in zip(pairs, plan.target.names, strict=True):
            if payload.values is not None and payload.values.is_complex():
                raise TargetError(f"{name!r} is complex, which has no lower and upper bound: use value(0.5), one bound on |z|")
    for i, (_, instead) in enumerate(pairs):
        if instead is not None:
            put(i, instead)
    return [payload for payload, _ in pairs]


def _drop(plan: Plan, host: Sequence[float], put: Put) -> None:
    """Take away what was dropped: a gradient of zeros would still move an optimizer that has momentum."""
    for i, block in enumerate(plan.partition.first):
        if block is not None and host[block] == 0:
            put(i, None)


def _on_nonfinite(step: Step, decision: Decision, host: Sequence[float], put: Put) -> tuple[ClipResult, State]:
    """Follow the policy; the threshold's state stays what it was."""
    before: State = step.known.state or {}
    bad = (~step.plan.tensor_cells(decision.cells).isfinite()).tolist()
    names = tuple(name for name, is_bad in zip(step.plan.target.names, bad, strict=True) if is_bad)
    match step.plan.clipping.nonfinite:
        case Raise():
            raise NonFiniteGradientError(names)
        case Skip():
            for i in range(len(step.payloads)):
                put(i, None)
            result = _result(step, decision, (torch.zeros_like(decision.cells), False), False)
            return replace(result, nonfinite_names=names, skipped=True), before
        case Zero():
            decision, applied = _zeroed(step, bad)
            return replace(_result(step, decision, applied, False), nonfinite_names=names, clipped=True), decision.state
    return replace(_result(step, decision, apply(step, decision, host), False), nonfinite_names=names), before


def _zeroed(step: Step, bad: Sequence[bool]) -> tuple[Decision, Applied]:
    """Set the NaN and Inf elements to 0 and clip what is left."""
    for payload, is_bad in zip(step.payloads, bad, strict=True):
        if is_bad and payload.values is not None:
            payload.values.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    decision = decide(step)
    return decision, apply(step, decision, decision.asked(step.plan).tolist())


def _result(step: Step, decision: Decision, applied: Applied, finite: Tensor | bool) -> ClipResult:
    plan = step.plan
    after, clipped = applied
    sizes = plan.sizes(step.payloads) if plan.clipping.norm.mean else None
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
