"""Methods whose blocks lie within one tensor: its gradient is all it takes, so each is clipped exactly when it appears."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from gradclip.clipping import Clipping
from gradclip.result import ClipResult
from gradclip.scopes import Global
from gradclip.thresholds import Threshold
from gradclip.torch.in_backward.one_by_one import Rates, Results, clip_one, measuring, over_one
from gradclip.torch.plan import Stage
from gradclip.torch.step import State

__all__ = ["TensorByTensor", "goes_tensor_by_tensor"]


def goes_tensor_by_tensor(clipping: Clipping) -> bool:
    """Whether each tensor's gradient is all it takes to clip it."""
    return not clipping.scope.spans_tensors and not clipping.threshold.couples


class TensorByTensor:
    """Clip each gradient with a stage of its own, and with its own part of the threshold's history.

    Args:
        stage: the method over all parameters.
        rates: the learning rates, where the threshold needs them.
        history: of all blocks, as a ``Clipper`` keeps it; empty before the first step. What is learnt is written into it.
    """

    def __init__(self, stage: Stage, rates: Rates, history: dict[str, Tensor]) -> None:
        self._clipping, self._blocks, self._rates, self._history = stage.clipping, stage.layout.partition, rates, history
        scope = stage.clipping.scope  # over one tensor that is one block, ``Global`` says the same and is quicker
        own = replace(stage.clipping, scope=Global() if scope.per_tensor else replace(scope, exclude=()))
        left_out = measuring(stage.clipping.norm, stage.clipping.nonfinite)
        firsts = stage.layout.first
        self._stages = [over_one(stage.target, i, left_out if first is None else own) for i, first in enumerate(firsts)]
        kept = {} if scope.per_element else dict(enumerate(stage.layout.partition.cells))
        self._counts = {i: count for i, count in kept.items() if firsts[i] is not None}
        self._axes = _block_axes(stage.clipping.threshold)
        self._shared: State = {}

    def clip(self, i: int, step: int) -> ClipResult:
        """Clip the gradient of parameter i."""
        device = self._stages[i].target.parameters[0].device
        included = self._blocks.first[i] is not None
        before = {key: self._part(key, i).to(device) for key in self._history} if included else {}
        result, state = clip_one(self._stages[i], self._rates and self._rates(i), before, step)
        if state is not None and included:
            self._learn(i, state, result.tensor_norms)
        return result

    def end_step(self, results: Results) -> tuple[Tensor | float, Tensor]:
        """Return the limits and factors of all blocks; of elements neither is kept, that would be a number for each."""
        self._history.update(self._shared)
        self._shared = {}
        limits = {i: result.limits for i, result in results.items() if self._blocks.first[i] is not None}
        factors = self._of_all({i: result.factors for i, result in results.items()}, 1.0)
        if self._clipping.threshold.uniform:
            return next(iter(limits.values()), math.inf), factors
        return self._of_all(limits, math.inf), factors

    def _of_all(self, values: Mapping[int, Tensor | float], absent: float) -> Tensor:
        like = next((v for v in values.values() if isinstance(v, Tensor)), torch.zeros(0, dtype=torch.float64))
        return torch.cat(
            [like[:0], *(torch.as_tensor(values.get(i, absent)).to(like).expand(n) for i, n in self._counts.items())]
        )

    def _learn(self, i: int, state: State, norms: Tensor) -> None:
        """Take in what parameter i left; what all blocks share moves on once a step, however many had a gradient."""
        device = self._stages[0].target.parameters[0].device
        if not self._history:
            start = self._clipping.threshold.init(norms.new_zeros(self._blocks.count))
            self._history.update({key: value.to(device, copy=True) for key, value in start.items()})
        for key, value in state.items():
            if self._axes[key] is not None:
                self._part(key, i).copy_(value)
        self._shared = {key: value.to(device) for key, value in state.items() if self._axes[key] is None}

    def _part(self, key: str, i: int) -> Tensor:
        whole, axis, first = self._history[key], self._axes[key], self._blocks.first[i]
        return whole if axis is None or first is None else whole.narrow(axis, first, self._blocks.cells[i])


def _block_axes(threshold: Threshold) -> dict[str, int | None]:
    """Return for each array of a rule's state the axis that counts blocks; None where all blocks share it."""
    one, two = (threshold.init(torch.zeros(count, dtype=torch.float64)) for count in (1, 2))
    sizes = {key: list(zip(value.shape, two[key].shape, strict=True)) for key, value in one.items()}
    return {key: next((axis for axis, (a, b) in enumerate(pairs) if a != b), None) for key, pairs in sizes.items()}
