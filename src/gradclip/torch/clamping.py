"""Clamp elements: all to one interval, or those of each tensor to the limit of its block."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradclip.backends import Backend
from gradclip.clipping import Clipping
from gradclip.thresholds import Context
from gradclip.torch.layout import Layout
from gradclip.torch.step import Applied, Decision, StepInputs
from gradclip.torch.strategy import Strategy

__all__ = ["ClampElements", "ClampTensors"]


class ClampElements(Strategy):
    """Clamp every element to an interval known in advance, so that none needs a norm or a factor of its own."""

    def __init__(self, clipping: Clipping, layout: Layout) -> None:
        super().__init__(clipping, layout)
        self.in_one_pass = layout.complete

    def at_once(self, backend: Backend, step: StepInputs) -> tuple[Decision, Applied] | None:
        """See :class:`Strategy`."""
        low, high, state = self.threshold.bounds(torch.empty(0), step.state or {}, Context(step.number))
        if low != -high:
            return None
        found = backend.clamp_and_measure(float(low), float(high))
        if found is None:
            return None
        cells, clipped = found
        return Decision(cells, cells.new_zeros(0), high, state), Applied(cells.clamp(max=high) if clipped else cells, clipped)

    def decide(self, backend: Backend, step: StepInputs) -> Decision:
        """See :class:`Strategy`."""
        low, high, state = self.threshold.bounds(torch.empty(0), step.state or {}, Context(step.number))
        if low == -high or self.layout.shards is None:
            cells = backend.norms(self.p)
            return Decision(cells, cells.new_zeros(0), high, state, bounds=(float(low), float(high)))
        each = [self.layout.backend_for(list(far)) for far in backend.extremes()]
        cells, above, below = backend.norms_beside(each, self.p)  # on all ranks, so that nothing has to be asked afterwards
        inside = self.layout.included_tensors(cells)
        after = torch.where(inside, torch.maximum(above.clamp(max=high), below.clamp(max=-low)), cells)
        changed = inside & ((above > high) | (below > -low))
        return Decision(cells, cells.new_zeros(0), high, state, bounds=(float(low), float(high)), changed=changed, after=after)

    def _decided_beyond(self, backend: Backend, decision: Decision, step: StepInputs) -> Decision:
        return decision

    def question(self, decision: Decision) -> Tensor:
        """See :class:`Strategy`: the largest size in each tensor."""
        return decision.cells

    def act(self, backend: Backend, decision: Decision, answer: Sequence[float] | None, step: StepInputs) -> Applied:
        """See :class:`Strategy`."""
        assert decision.bounds is not None
        low, high = decision.bounds
        over, safe = self.layout.included, min(-low, high)
        if answer is not None:
            over = [inside and not norm <= safe for inside, norm in zip(over, answer, strict=True)]
        clipped: Tensor | bool = any(over)
        if decision.changed is not None:
            clipped = decision.changed.any()
        elif answer is None or -low != high:
            clipped = backend.outside(low, high, over)
        if any(over):
            backend.clamp(low, high, over)
        if -low != high:
            return Applied(backend.norms(self.p) if decision.after is None else decision.after, clipped)
        inside = self.layout.included_tensors(decision.cells)
        return Applied(torch.where(inside, decision.cells.clamp(max=high), decision.cells), clipped)


class ClampTensors(Strategy):
    """Clamp the elements of every tensor to the limit of its block."""

    def question(self, decision: Decision) -> Tensor:
        """See :class:`Strategy`: the limits that bind, inf for the others."""
        return torch.where(decision.factors < 1, decision.limits + torch.zeros_like(decision.factors), math.inf)

    def act(self, backend: Backend, decision: Decision, answer: Sequence[float] | None, step: StepInputs) -> Applied:
        """See :class:`Strategy`."""
        inside = self.layout.included_tensors(decision.cells)
        limits = torch.where(inside, self.layout.cell_factors(self.question(decision)), math.inf)
        after = torch.minimum(decision.cells, limits)
        if answer is None:
            backend.clamp_each(limits)
            return Applied(after, (limits < math.inf).any())
        own = [math.inf if block is None else answer[block] for block in self.layout.first]
        backend.clamp_each(own)
        return Applied(after, min(own, default=math.inf) < math.inf)
