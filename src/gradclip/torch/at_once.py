"""One pass instead of two: clip each block as soon as it is measured, still in the cache, where its limit is known beforehand.

A NaN or Inf is found on the way, when other blocks have been clipped already. Under ``Skip`` that does not matter: every
gradient is dropped then. Under the other policies it would, so they measure first.
"""

from __future__ import annotations

from array import array

import torch
from torch import Tensor

from gradclip.backends import kernel
from gradclip.backends import torch_eager as backend
from gradclip.backends.torch_norms import vector
from gradclip.backends.torch_payload import PlainPayloads
from gradclip.nonfinite import Skip
from gradclip.rescales import Hard
from gradclip.thresholds import Context
from gradclip.torch.applying import Applied
from gradclip.torch.deciding import Decision, Step, learning_rates, weight_norms

__all__ = ["clip_at_once"]


def clip_at_once(step: Step) -> tuple[Decision, Applied] | None:
    """Measure and clip in one pass; None where that cannot be, and nothing has been changed."""
    plan, payloads = step.plan, step.payloads
    late = not isinstance(plan.clipping.nonfinite, Skip)
    if late or not plan.partition.complete or not isinstance(payloads, PlainPayloads):
        return None
    return _clamped(step, payloads) if plan.clamps else _limited(step, payloads)


def _clamped(step: Step, payloads: PlainPayloads) -> tuple[Decision, Applied] | None:
    threshold = step.plan.clipping.threshold
    low, high, state = threshold.bounds(torch.empty(0), step.known.state or {}, Context(step.known.number))
    if low != -high:
        return None
    norms, clipped = payloads.table.clamp(low, high)
    cells = vector(norms)
    decision = Decision(cells, cells.new_zeros(0), high, state, (float(low), float(high)))
    return decision, (cells.clamp(max=high) if clipped else cells, clipped)


def _limited(step: Step, payloads: PlainPayloads) -> tuple[Decision, Applied] | None:
    """Blocks that are cells, each brought to its own limit."""
    plan, method = step.plan, step.plan.clipping
    known = method.threshold.blind and isinstance(method.rescale, Hard) and kernel.takes(method.norm.p)
    shared_out = plan.partition.identity and plan.partition.count > 1 and plan.largest_share * torch.get_num_threads() <= 1
    if not known or not shared_out:
        return None
    table = backend.table_of_cells(payloads, plan.partition)
    if table is None:
        return None
    context = Context(step.known.number, weight_norms(step), learning_rates(step))
    limits, state = method.threshold.limits(torch.zeros(plan.partition.count, dtype=torch.float64), {}, context)
    norms, clipped = table.limit(_plain(step, limits), method.norm.p)
    cells = vector(norms)
    factors = method.rescale.factors(plan.block_norms(cells, payloads), limits, step.known.number)
    return Decision(cells, factors, limits, state), (cells * factors if clipped else cells, clipped)


def _plain(step: Step, limits: Tensor | float) -> array[float]:
    """The limits of the plain p-norms, as numbers of the host."""
    plan = step.plan
    if plan.clipping.norm.mean:
        limits = limits * plan.sizes(step.payloads).clamp(min=1) ** (1 / plan.clipping.norm.p)
    if isinstance(limits, Tensor):
        return array("d", limits.contiguous().numpy().tobytes())
    return array("d", (limits,)) * plan.partition.count
