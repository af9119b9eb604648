"""Methods whose blocks lie within one tensor: its gradient is all it takes, so each is clipped exactly when it appears."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from gradclip.clipping import Clipping
from gradclip.result import ClipResult
from gradclip.scopes import Global, PerElement, PerTensor, PerUnit
from gradclip.thresholds import Threshold
from gradclip.torch.deciding import State
from gradclip.torch.in_backward.one_by_one import Rates, Results, clip_one, measuring, over_one
from gradclip.torch.plan import Plan

__all__ = ["TensorByTensor", "goes_tensor_by_tensor"]


def goes_tensor_by_tensor(clipping: Clipping) -> bool:
    """Whether each tensor's gradient is all it takes to clip it."""
    return isinstance(clipping.scope, (PerTensor, PerUnit, PerElement)) and not clipping.threshold.couples


class TensorByTensor:
    """Clip each gradient with a plan of its own, and with its own part of the threshold's state."""

    def __init__(self, plan: Plan, rates: Rates) -> None:
        self._clipping, self._blocks, self._rates = plan.clipping, plan.partition, rates
        scope = plan.clipping.scope  # over one tensor that is one block, ``Global`` says the same and is quicker
        own = replace(plan.clipping, scope=Global() if isinstance(scope, PerTensor) else replace(scope, exclude=()))
        left_out = measuring(plan.clipping.norm, plan.clipping.nonfinite)
        firsts = plan.partition.first
        self._plans = [over_one(plan.target, i, left_out if first is None else own) for i, first in enumerate(firsts)]
        self._devices = [p.device for p in plan.target.parameters]
        self._axes = _block_axes(plan.clipping.threshold)
        self._shared: State = {}
        self.state: State = {}
        """The threshold's, of all blocks, as a ``Clipper`` keeps it; empty before the first step."""

    def decide(self, norms: Mapping[int, Tensor], step: int) -> None:
        """Nothing, whatever a first pass has measured."""

    def forget(self) -> None:
        """Nothing either."""

    def clip(self, i: int, step: int) -> ClipResult:
        """Clip the gradient of parameter i."""
        included = self._blocks.first[i] is not None
        part = {k: self._part(k, v, i).to(self._devices[i]) for k, v in self.state.items()} if included else {}
        result, state = clip_one(self._plans[i], self._rates and self._rates(i), part, step)
        if state is not None and included and self._blocks.cells[i]:
            self._learn(i, state, result.tensor_norms)
        return result

    def end_step(self, results: Results, norms: Tensor) -> tuple[Tensor | float, Tensor]:
        """Return the limits and factors of all blocks; of elements neither is kept, that would be a number for each."""
        self.state, self._shared = {**self.state, **self._shared}, {}
        counts = {i: n for i, n in enumerate(self._blocks.cells) if self._blocks.first[i] is not None}
        if isinstance(self._clipping.scope, PerElement):
            counts = {}

        def each(values: Mapping[int, Tensor | float], absent: float) -> Tensor:
            vectors = [torch.as_tensor(values.get(i, absent)).to(norms).expand(count) for i, count in counts.items()]
            return torch.cat([norms[:0], *vectors])

        limits = {i: result.limits for i, result in results.items() if self._blocks.first[i] is not None}
        factors = each({i: result.factors for i, result in results.items()}, 1.0)
        return next(iter(limits.values()), math.inf) if self._clipping.threshold.uniform else each(limits, math.inf), factors

    def _learn(self, i: int, state: State, like: Tensor) -> None:
        """Take in what parameter i left; what all blocks share moves on once a step, however many had a gradient."""
        if not self.state:
            start = self._clipping.threshold.init(like.new_zeros(self._blocks.count))
            self.state = {
                key: value.to(self._devices[0], copy=True) for key, value in start.items()
            }  # some are one and the same
        for key, value in state.items():
            if self._axes[key] is not None:
                self._part(key, self.state[key], i).copy_(value)
        self._shared = {key: value.to(self._devices[0]) for key, value in state.items() if self._axes[key] is None}

    def _part(self, key: str, value: Tensor, i: int) -> Tensor:
        axis, first = self._axes[key], self._blocks.first[i]
        return value if axis is None or first is None else value.narrow(axis, first, self._blocks.cells[i])


def _block_axes(threshold: Threshold) -> dict[str, int | None]:
    """Return for each array of a rule's state the axis that counts blocks; None where all blocks share it."""
    one, two = (threshold.init(torch.zeros(count, dtype=torch.float64)) for count in (1, 2))
    sizes = {key: list(zip(value.shape, two[key].shape, strict=True)) for key, value in one.items()}
    return {key: next((axis for axis, (a, b) in enumerate(pairs) if a != b), None) for key, pairs in sizes.items()}
