"""How a method is carried out: one strategy for each way to change gradients, chosen when the method is laid out.

A strategy decides (measures, asks the threshold and the rescale), says what the host has to know to act (``question``), and
acts. Gradients change here and in ``dropin.py``, nowhere else.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from gradclip.backends import Backend, combined_on_host, vector
from gradclip.clipping import Clipping
from gradclip.errors import TargetError
from gradclip.thresholds import Context
from gradclip.torch.layout import Layout
from gradclip.torch.step import Applied, Decision, StepInputs

__all__ = ["Strategy", "strategy_for"]


_ONE = (1.0).__eq__


class Strategy(ABC):
    """One way to change gradients.

    Args:
        clipping: the method.
        layout: its blocks over the parameters.
    """

    goes_by_shape: ClassVar[bool] = False
    """It matters which shapes the tensors had when they were laid out."""

    def __init__(self, clipping: Clipping, layout: Layout) -> None:
        self.clipping, self.layout = clipping, layout
        self.threshold, self.rescale, self.p = clipping.threshold, clipping.rescale, clipping.norm.p
        self._needs_context = self.threshold.needs_weights or self.threshold.needs_lr
        self.in_one_pass = False
        """The limits are known before anything is measured, so that ``at_once`` is worth trying."""

    def at_once(self, backend: Backend, step: StepInputs) -> tuple[Decision, Applied] | None:
        """Measure and change in one pass; None, and nothing is changed, where the backend takes two.

        A NaN or Inf is found on the way, when other blocks have been clipped already: for policies that do not mind.
        """
        return None

    def decide(self, backend: Backend, step: StepInputs) -> Decision:
        """Measure, and ask the threshold and the rescale.

        Raises:
            TargetError: the threshold needs weights or a learning rate that were not given.
        """
        weights = self._weights(backend, step) if self.threshold.needs_weights else None
        cells, *beside = backend.norms_beside([] if weights is None else [weights], self.p)
        return self._decided(backend, step, cells, None if weights is None else self.layout.block_norms(weights, beside[0]))

    def _decided(self, backend: Backend, step: StepInputs, cells: Tensor, weight_norms: Tensor | None = None) -> Decision:
        norms = self.layout.block_norms(backend, cells)
        state = step.state or (self.threshold.init(norms) if self.threshold.stateful else {})
        context = self._context(backend, step, weight_norms) if self._needs_context else Context(step.number)
        limits, state = self.threshold.limits(norms, state, context)
        total = norms.reshape(()) if self.layout.one_block else None
        return Decision(cells, self.rescale.factors(norms, limits, step.number), limits, state, total)

    @abstractmethod
    def question(self, decision: Decision) -> Tensor:
        """Return what the host has to know to act: a vector, read together with whether all is finite."""

    @abstractmethod
    def act(self, backend: Backend, decision: Decision, answer: Sequence[float] | None, step: StepInputs) -> Applied:
        """Change the gradients in place.

        Args:
            backend: the gradients.
            decision: what is to be done.
            answer: what the host was told, so that what needs no change is not touched; None to do everything without asking.
            step: the same as ``decide`` had.
        """

    def carried(self, factors: Tensor | Sequence[float], finite: Tensor | None, step: StepInputs) -> bool:
        """Hand one factor that all gradients share to somebody who multiplies by it anyway; False where there is nobody.

        Args:
            factors: of the blocks.
            finite: whether every gradient is, where that has not been asked: the step is to be dropped if not.
            step: knows who.
        """
        return False

    def dropped(self, answer: Sequence[float]) -> list[int]:
        """Return the gradients that are to be None: of zeros an optimizer that has momentum would still be moved."""
        return []

    def _context(self, backend: Backend, step: StepInputs, weight_norms: Tensor | None) -> Context:
        """What a rule may know besides the norms, of the parameters that have a gradient."""
        lrs = None
        if self.threshold.needs_lr:
            if step.lrs is None:
                raise TargetError(f"{self.clipping} needs the learning rate: use gradclip.attach(optimizer, ...)")
            lrs = self._learning_rates(backend, step.lrs)
        return Context(step.number, weight_norms, lrs)

    def _weights(self, backend: Backend, step: StepInputs) -> Backend:
        """The weights of the parameters that have a gradient."""
        if step.weights is None:
            raise TargetError(f"{self.clipping} needs the weights: pass parameters, or the weights with params=...")
        own = [w if there else None for w, there in zip(step.weights, backend.may_be_present, strict=True)]
        return backend.like(own) or self.layout.backend_for(own)

    def _learning_rates(self, backend: Backend, lrs: Sequence[float]) -> Tensor:
        return self.layout.largest(_moving(backend, lrs))


class ScaleTensors(Strategy):
    """Multiply every tensor by one number."""

    def __init__(self, clipping: Clipping, layout: Layout) -> None:
        super().__init__(clipping, layout)
        blocks_are_cells = layout.partition.identity and layout.count > 1
        self.in_one_pass = blocks_are_cells and self.threshold.blind and self.rescale.caps

    def at_once(self, backend: Backend, step: StepInputs) -> tuple[Decision, Applied] | None:
        """See :class:`Strategy`: blocks that are cells, each brought to its own limit."""
        if not backend.on_host or self.layout.largest_share * torch.get_num_threads() > 1:  # a cell is one thread's work
            return None
        weights = self._weights(backend, step) if self.threshold.needs_weights else None
        context = self._context(
            backend, step, None if weights is None else self.layout.block_norms(weights, weights.norms(self.p))
        )
        zeros = torch.zeros(self.layout.count, dtype=torch.float64)
        limits, state = self.threshold.limits(zeros, {}, context)
        found = backend.limit(self.layout.cell_limits(limits), self.p)
        if found is None:
            return None
        cells, clipped = found
        norms = self.layout.block_norms(backend, cells)
        factors = self.rescale.factors(norms, limits, step.number)
        return Decision(cells, factors, limits, state), Applied(cells * factors if clipped else cells, clipped)

    def question(self, decision: Decision) -> Tensor:
        """See :class:`Strategy`: the factors."""
        return decision.factors

    def act(self, backend: Backend, decision: Decision, answer: Sequence[float] | None, step: StepInputs) -> Applied:
        """See :class:`Strategy`."""
        if answer is None:
            factors = self.layout.cell_factors(decision.factors)
            if not self.carried(decision.factors, None, step):
                backend.scale(factors)
            return Applied(decision.cells * factors, (decision.factors != 1).any())
        if all(map(_ONE, answer)):
            return Applied(decision.cells, False)
        backend.scale(answer if self.layout.partition.identity else self.layout.tensor_factors(answer))
        return Applied(decision.cells * self.layout.cell_factors(decision.factors), True)

    def dropped(self, answer: Sequence[float]) -> list[int]:
        """See :class:`Strategy`."""
        if not self.rescale.drops:
            return []
        return [i for i, block in enumerate(self.layout.first) if block is not None and answer[block] == 0]


class ScaleTogether(ScaleTensors):
    """Multiply all tensors by the same number, which a fused optimizer may do in its own pass."""

    def __init__(self, clipping: Clipping, layout: Layout) -> None:
        super().__init__(clipping, layout)
        self._host_decides = self.threshold.uniform and self.rescale.caps and not clipping.norm.mean and bool(layout.first)

    def decide(self, backend: Backend, step: StepInputs) -> Decision:
        """See :class:`Strategy`; with Python numbers, where the limit is known in advance, it is much quicker."""
        if not (self._host_decides and backend.on_host):
            return super().decide(backend, step)
        cells = backend.norms(self.p)
        norm = combined_on_host(cells.tolist(), self.p)
        if not math.isfinite(norm):
            return self._decided(backend, step, cells)
        limit, state = self.threshold.limits(cells, step.state or {}, Context(step.number))
        factor = 1.0 if norm <= limit else float(limit / norm)  # and 1 where the limit is inf
        both = vector(array("d", (norm, factor)))
        return Decision(cells, both[1:], limit, state, both[0], answer=(factor,))

    def act(self, backend: Backend, decision: Decision, answer: Sequence[float] | None, step: StepInputs) -> Applied:
        """See :class:`Strategy`."""
        if answer is None:
            return super().act(backend, decision, None, step)
        if answer[0] == 1:
            return Applied(decision.cells, False, decision.total)
        if step.carry is None or not self.carried(answer, None, step):
            backend.scale(answer[0])
        total = None if decision.total is None else decision.total * decision.factors[0]
        return Applied(decision.cells * decision.factors, True, total)

    def _learning_rates(self, backend: Backend, lrs: Sequence[float]) -> Tensor:
        moving = _moving(backend, lrs)
        return moving.amax().reshape(1) if len(lrs) else moving.new_zeros(1)

    def carried(self, factors: Tensor | Sequence[float], finite: Tensor | None, step: StepInputs) -> bool:
        """See :class:`Strategy`."""
        return step.carry is not None and not self.rescale.drops and step.carry(factors[0], finite)


class ScaleUnits(ScaleTensors):
    """Multiply every output unit by one number."""

    goes_by_shape: ClassVar[bool] = True

    def question(self, decision: Decision) -> Tensor:
        """See :class:`Strategy`: which tensors have a factor other than 1."""
        return _any_changed(_own_factors(decision.factors, self.layout), decision.factors)

    def act(self, backend: Backend, decision: Decision, answer: Sequence[float] | None, step: StepInputs) -> Applied:
        """See :class:`Strategy`."""
        changed = [True] * len(backend.tensors) if answer is None else list(map(bool, answer))
        if not any(changed):
            return Applied(decision.cells, False)
        factors = self.layout.cell_factors(decision.factors)
        backend.scale(factors, changed)
        return Applied(decision.cells * factors, True)

    def dropped(self, answer: Sequence[float]) -> list[int]:
        """See :class:`Strategy`: a unit of zeros is no gradient that could be None."""
        return []


class ScaleElements(Strategy):
    """Multiply every element by its own number, by limits that differ or a rescale that is no clamp."""

    goes_by_shape: ClassVar[bool] = True

    def decide(self, backend: Backend, step: StepInputs) -> Decision:
        """See :class:`Strategy`."""
        weights = self._sizes(self._weights(backend, step)) if self.threshold.needs_weights else None
        sizes = self._sizes(backend)
        state = step.state or (self.threshold.init(sizes) if self.threshold.stateful else {})
        limits, state = self.threshold.limits(sizes, state, self._context(backend, step, weights))
        factors = self.rescale.factors(sizes, limits, step.number)
        changed = _any_changed(_own_factors(factors, self.layout), factors)
        after = self.layout.backend_for(_own_factors(sizes * factors, self.layout))
        flags = self.layout.backend_for([changed[i : i + 1] for i in range(len(changed))])
        cells, found, changed = backend.norms_beside([after, flags], self.p)
        found = torch.where(self.layout.included_tensors(cells), found, cells)
        return Decision(cells, factors, limits, state, changed=changed, after=found)

    def question(self, decision: Decision) -> Tensor:
        """See :class:`Strategy`: which tensors have a factor other than 1, on any rank."""
        assert decision.changed is not None
        return decision.changed

    def act(self, backend: Backend, decision: Decision, answer: Sequence[float] | None, step: StepInputs) -> Applied:
        """See :class:`Strategy`."""
        changed = [True] * len(backend.tensors) if answer is None else list(map(bool, answer))
        if not any(changed):
            return Applied(decision.cells, False)
        own = _own_factors(decision.factors, self.layout)
        backend.scale_elements([f if c else None for f, c in zip(own, changed, strict=True)])
        assert decision.after is not None
        return Applied(decision.after, True)

    def _sizes(self, backend: Backend) -> Tensor:
        return backend.sizes_of_elements(self.layout.included, self.layout.shapes)

    def _learning_rates(self, backend: Backend, lrs: Sequence[float]) -> Tensor:
        pairs = zip(_moving(backend, lrs).tolist(), self.layout.partition.cells, self.layout.included, strict=True)
        kept = [(lr, count) for lr, count, inside in pairs if inside]
        each, counts = (torch.tensor([pair[i] for pair in kept], device=backend.device) for i in (0, 1))
        return torch.repeat_interleave(each.double(), counts.long())


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


def strategy_for(clipping: Clipping, layout: Layout) -> Strategy:
    """Return the way in which a method is carried out."""
    scope, rescale = clipping.scope, clipping.rescale
    if scope.per_element:
        known = clipping.threshold.uniform and rescale.caps
        return ClampElements(clipping, layout) if known else ScaleElements(clipping, layout)
    if layout.units is not None:
        return ScaleUnits(clipping, layout)
    if rescale.elementwise:
        return ClampTensors(clipping, layout)
    return ScaleTogether(clipping, layout) if layout.one_block else ScaleTensors(clipping, layout)


def _own_factors(factors: Tensor, layout: Layout) -> list[Tensor | None]:
    """Return each tensor's own factors, None where it is left out."""
    cells = layout.partition.cells
    return [None if first is None else factors[first : first + n] for first, n in zip(layout.first, cells, strict=True)]


def _moving(backend: Backend, lrs: Sequence[float]) -> Tensor:
    """Return the learning rate of each tensor, 0 where there is none."""
    each = torch.tensor(lrs, dtype=torch.float64, device=backend.present.device)
    return torch.where(backend.present, each, 0.0).to(backend.device)


def _any_changed(own: Sequence[Tensor | None], like: Tensor) -> Tensor:
    """Return for each tensor whether any of its factors is not 1."""
    changed = [like.new_zeros(1) if f is None else (f != 1).any().reshape(1).to(like) for f in own]
    return torch.cat([like[:0], *changed])
