"""Multiply blocks by a number each: all together, tensor by tensor, unit by unit, or every element by its own."""

from __future__ import annotations

import math
from abc import abstractmethod
from array import array
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from gradclip.backends import Backend, combined_on_host, vector
from gradclip.clipping import Clipping
from gradclip.thresholds import Context
from gradclip.torch import extremes
from gradclip.torch.layout import Layout
from gradclip.torch.step import Applied, Decision, StepInputs
from gradclip.torch.strategy import Strategy, moving

__all__ = ["ScaleElements", "ScaleTensors", "ScaleTogether", "ScaleUnits"]

_ONE = (1.0).__eq__
_LEAST_RANGE = 6e4


class Scale(Strategy):
    """Multiply every block by one number."""

    def beyond(self, backend: Backend, decision: Decision, step: StepInputs) -> tuple[Decision, Applied]:
        """See :class:`Strategy`."""
        done = decision.cells.isfinite() if decision.at_once else None  # a block is a cell then
        decision = self._decided_beyond(backend, decision, step)
        return decision, self._act_exactly(backend, decision, step, done)

    def _act_exactly(self, backend: Backend, decision: Decision, step: StepInputs, done: Tensor | None = None) -> Applied:
        """Change the gradients by factors that float64 need not hold, and put into the decision what of them it does.

        Args:
            backend, decision, step: as for ``act``.
            done: blocks that have been changed already.
        """
        norms = extremes.exact_norms(self._sizes(backend, decision.cells), backend, self._sizes)
        factors = extremes.exact_factors(self.rescale, norms, decision.limits, step.number)
        if self.rescale.raises:
            factors = extremes.in_range(factors, self._below_end(backend))
        decision.factors = extremes.value_of(factors)
        for part in extremes.parts(factors):
            self._multiply(backend, part if done is None else torch.where(done, 1.0, part))
        return Applied(backend.norms(self.p), bool((decision.factors != 1).any()))

    def _sizes(self, backend: Backend, cells: Tensor | None = None) -> Tensor:
        """Return the norms of all blocks, from those of the cells where they are known."""
        return self.layout.block_norms(backend, backend.norms(self.p) if cells is None else cells)

    @abstractmethod
    def _multiply(self, backend: Backend, factors: Tensor, changed: Sequence[bool] | None = None) -> None:
        """Multiply every block by its factor."""

    @abstractmethod
    def _below_end(self, backend: Backend) -> Tensor:
        """Return how many powers of two each block may be scaled up."""


class ScaleTensors(Scale):
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
        decision = Decision(cells, factors, limits, state, at_once=True)
        return decision, Applied(cells * factors if clipped else cells, clipped)

    def question(self, decision: Decision) -> Tensor:
        """See :class:`Strategy`: the factors; where they may be greater than 1 also how far they bring the gradients."""
        return torch.cat([decision.factors, self._reach(decision)]) if self.rescale.raises else decision.factors

    def _reach(self, decision: Decision) -> Tensor:
        """Return the largest norm after; inf where a norm or a factor is too small for float64. A vector of one."""
        factors, tiny = decision.factors, extremes.SMALLEST
        if not len(factors) or not len(decision.cells):
            return decision.cells.new_zeros(1)
        small = (factors < tiny).any() & (not self.rescale.drops)
        if not self.rescale.raises:
            return torch.where(small, math.inf, decision.cells.new_zeros(1))
        each = self.layout.cell_factors(factors)
        small |= ((decision.cells < tiny) & (decision.cells > 0) & (each > 1)).any()
        return torch.where(small, math.inf, (decision.cells * each).amax().reshape(1))

    def act(self, backend: Backend, decision: Decision, answer: Sequence[float] | None, step: StepInputs) -> Applied:
        """See :class:`Strategy`."""
        if answer is None:
            factors = self.layout.cell_factors(decision.factors)
            if not self.carried(decision.factors, None, step):
                backend.scale(factors)
            return Applied(decision.cells * factors, (decision.factors != 1).any())
        if self.rescale.raises:
            *answer, reach = answer
            exactly = _is_far(reach, backend)
        else:
            exactly = min(answer, default=1.0) < extremes.SMALLEST and not self.rescale.drops
        if exactly:
            return self._act_exactly(backend, decision, step)
        if all(map(_ONE, answer)):
            return Applied(decision.cells, False)
        backend.scale(answer if self.layout.partition.identity else self.layout.tensor_factors(answer))
        return Applied(decision.cells * self.layout.cell_factors(decision.factors), True)

    def dropped(self, answer: Sequence[float]) -> list[int]:
        """See :class:`Strategy`."""
        if not self.rescale.drops:
            return []
        return [i for i, block in enumerate(self.layout.first) if block is not None and answer[block] == 0]

    def _multiply(self, backend: Backend, factors: Tensor, changed: Sequence[bool] | None = None) -> None:
        backend.scale(self.layout.cell_factors(factors), changed)

    def _below_end(self, backend: Backend) -> Tensor:
        ends = self.layout.cells_of(extremes.ends_of_ranges(backend))
        return self.layout.smallest(extremes.below_end(backend.norms(math.inf), ends))


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
        limit, state = self.threshold.fixed, step.state or {}
        if limit is None:
            limit, state = self.threshold.limits(cells, state, Context(step.number))
        factor = 1.0 if norm <= limit else float(limit / norm)  # and 1 where the limit is inf
        both = vector(array("d", (norm, factor)))
        return Decision(cells, both[1:], limit, state, both[0], answer=(factor,))

    def act(self, backend: Backend, decision: Decision, answer: Sequence[float] | None, step: StepInputs) -> Applied:
        """See :class:`Strategy`."""
        if answer is None:
            return super().act(backend, decision, None, step)
        small = answer[0] < extremes.SMALLEST and not self.rescale.drops
        if small or (self.rescale.raises and _is_far(answer[1], backend)):
            return self._act_exactly(backend, decision, step)
        if answer[0] == 1:
            return Applied(decision.cells, False, decision.total)
        if step.carry is None or not self.carried(answer, None, step):
            backend.scale(answer[0])
        total = None if decision.total is None else decision.total * decision.factors[0]
        return Applied(decision.cells * decision.factors, True, total)

    def _learning_rates(self, backend: Backend, lrs: Sequence[float]) -> Tensor:
        each = moving(backend, lrs)
        return each.amax().reshape(1) if len(lrs) else each.new_zeros(1)

    def carried(self, factors: Tensor | Sequence[float], finite: Tensor | None, step: StepInputs) -> bool:
        """See :class:`Strategy`."""
        return step.carry is not None and not self.rescale.drops and step.carry(factors[0], finite)


class ScaleUnits(ScaleTensors):
    """Multiply every output unit by one number."""

    goes_by_shape: ClassVar[bool] = True

    def question(self, decision: Decision) -> Tensor:
        """See :class:`Strategy`: which tensors have a factor other than 1, and how far factors bring the gradients."""
        return torch.cat([_any_changed(_own_factors(decision.factors, self.layout), decision.factors), self._reach(decision)])

    def act(self, backend: Backend, decision: Decision, answer: Sequence[float] | None, step: StepInputs) -> Applied:
        """See :class:`Strategy`."""
        *flags, reach = answer or [*[1.0] * len(backend.tensors), 0.0]
        if _is_far(reach, backend):
            return self._act_exactly(backend, decision, step)
        changed = list(map(bool, flags))
        if not any(changed):
            return Applied(decision.cells, False)
        factors = self.layout.cell_factors(decision.factors)
        backend.scale(factors, changed)
        return Applied(decision.cells * factors, True)

    def dropped(self, answer: Sequence[float]) -> list[int]:
        """See :class:`Strategy`: a unit of zeros is no gradient that could be None."""
        return []


class ScaleElements(Scale):
    """Multiply every element by its own number, by limits that differ or a rescale that is no clamp."""

    goes_by_shape: ClassVar[bool] = True

    def decide(self, backend: Backend, step: StepInputs) -> Decision:
        """See :class:`Strategy`."""
        return self._decided_of_sizes(backend, step, self._sizes(backend))

    def _decided_beyond(self, backend: Backend, decision: Decision, step: StepInputs) -> Decision:
        sizes = self._sizes(backend)
        return self._decided_of_sizes(backend, step, sizes.clamp(max=torch.finfo(sizes.dtype).max))

    def _decided_of_sizes(self, backend: Backend, step: StepInputs, sizes: Tensor) -> Decision:
        weights = self._sizes(self._weights(backend, step)) if self.threshold.needs_weights else None
        state = step.state or (self.threshold.init(sizes) if self.threshold.stateful else {})
        limits, state = self.threshold.limits(sizes, state, self._context(backend, step, weights))
        factors = self.rescale.factors(sizes, limits, step.number)
        changed = _any_changed(_own_factors(factors, self.layout), factors)
        changed = torch.where(_any(_own_factors(self._is_far(factors), self.layout), factors) > 0, 2.0, changed)
        after = self.layout.backend_for(_own_factors(sizes * factors, self.layout))
        flags = self.layout.backend_for([changed[i : i + 1] for i in range(len(changed))])
        cells, found, changed = backend.norms_beside([after, flags], self.p)
        found = torch.where(self.layout.included_tensors(cells), found, cells)
        return Decision(cells, factors, limits, state, changed=changed, after=found)

    def question(self, decision: Decision) -> Tensor:
        """See :class:`Strategy`: which tensors have a factor other than 1, on any rank; 2 where one may be none of float64."""
        assert decision.changed is not None
        return decision.changed

    def act(self, backend: Backend, decision: Decision, answer: Sequence[float] | None, step: StepInputs) -> Applied:
        """See :class:`Strategy`."""
        if max(answer or [0.0]) > 1:
            return self._act_exactly(backend, decision, step)
        changed = [True] * len(backend.tensors) if answer is None else list(map(bool, answer))
        if not any(changed):
            return Applied(decision.cells, False)
        self._multiply(backend, decision.factors, changed)
        assert decision.after is not None
        return Applied(decision.after, True)

    def _sizes(self, backend: Backend, cells: Tensor | None = None) -> Tensor:
        return backend.sizes_of_elements(self.layout.included, self.layout.shapes)

    def _is_far(self, factors: Tensor) -> Tensor:
        """Which factors are too small for float64, or may bring an element beyond the range of its dtype."""
        far = (factors < extremes.SMALLEST) & (not self.rescale.drops)
        return far | (factors > 1) if self.rescale.raises else far

    def _multiply(self, backend: Backend, factors: Tensor, changed: Sequence[bool] | None = None) -> None:
        own = _own_factors(factors, self.layout)
        backend.scale_elements(own if changed is None else [f if c else None for f, c in zip(own, changed, strict=True)])

    def _below_end(self, backend: Backend) -> Tensor:
        return extremes.below_end(self._sizes(backend), self._of_elements(extremes.ends_of_ranges(backend)))

    def _learning_rates(self, backend: Backend, lrs: Sequence[float]) -> Tensor:
        return self._of_elements(moving(backend, lrs))

    def _of_elements(self, tensors: Tensor) -> Tensor:
        """Return for each element that is not left out a number that each tensor has."""
        counts = [n if inside else 0 for n, inside in zip(self.layout.partition.cells, self.layout.included, strict=True)]
        return torch.repeat_interleave(tensors, torch.tensor(counts, dtype=torch.long, device=tensors.device))


def _is_far(reach: float, backend: Backend) -> bool:
    """Whether a norm lies beyond the range of some gradient's dtype; the least of all ranges is float16's."""
    return not reach < _LEAST_RANGE and not reach < extremes.smallest_range(backend)


def _own_factors(factors: Tensor, layout: Layout) -> list[Tensor | None]:
    """Return each tensor's own factors, None where it is left out."""
    cells = layout.partition.cells
    return [None if first is None else factors[first : first + n] for first, n in zip(layout.first, cells, strict=True)]


def _any_changed(own: Sequence[Tensor | None], like: Tensor) -> Tensor:
    """Return for each tensor whether any of its factors is not 1."""
    return _any([None if f is None else f != 1 for f in own], like)


def _any(own: Sequence[Tensor | None], like: Tensor) -> Tensor:
    """Return for each tensor whether any of its flags is set, as numbers."""
    return torch.cat([like[:0], *(like.new_zeros(1) if f is None else f.any().reshape(1).to(like) for f in own)])
