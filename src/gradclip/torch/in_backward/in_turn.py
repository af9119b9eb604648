"""The two methods of a chain, one after the other on each gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gradclip.errors import TargetError
from gradclip.nonfinite import Propagate
from gradclip.result import ClipResult
from gradclip.thresholds.rule import joined, part_of
from gradclip.torch.deciding import State
from gradclip.torch.in_backward.one_by_one import Alone, OneByOne, Rates, Results, clip_one, measuring, one_tensor, stands_alone
from gradclip.torch.plan import Plan

__all__ = ["InTurn"]


class InTurn(OneByOne):
    """Clip each gradient with both methods of a chain; both must need nothing but that gradient.

    Args:
        plans: the methods over all parameters; results are in the norm of the second.
        rates: the learning rates, where a threshold needs them.

    Raises:
        TargetError: a method that needs the norms of all gradients.
    """

    def __init__(self, plans: tuple[Plan, ...], rates: Rates) -> None:
        if len(plans) > 2:
            raise TargetError("a chain of more than two methods: use gradclip.Clipper after backward()")
        for plan in plans:
            if not stands_alone(plan.clipping):
                raise TargetError(
                    f"{plan.clipping} in a chain needs the norms of all gradients: use gradclip.Clipper after backward()"
                )
        first, second = plans
        self._parameters = first.target.parameters
        self._first, self._second = Alone(first, rates), Alone(second, rates)
        look = measuring(second.clipping, Propagate())
        self._looks = [one_tensor(second, i, look) for i in range(len(self._parameters))]
        self._firsts: dict[int, ClipResult] = {}
        self._seconds: dict[int, ClipResult] = {}

    def foresee(self, cells: Tensor, present: Sequence[bool], number: int) -> None:
        """See :class:`OneByOne`; nothing of it is needed."""

    def clip(self, i: int, number: int) -> ClipResult:
        """See :class:`OneByOne`."""
        before = clip_one(self._looks[i])[0]._cells
        first = self._firsts[i] = self._first.clip(i, number)
        if self._parameters[i].grad is None:
            return replace(first, _cells=before, _cells_after=torch.zeros_like(before))
        second = self._seconds[i] = self._second.clip(i, number)
        return replace(
            second,
            clipped=first.clipped | second.clipped,
            finite=first.finite,
            nonfinite_names=first.nonfinite_names,
            _cells=before,
        )

    def end_step(self, results: Results, cells: Tensor, after: Tensor, number: int) -> tuple[Tensor | float, Tensor]:
        """See :class:`OneByOne`. The limits are those of the second method; no one factor tells what both did."""
        self._first.end_step(self._firsts, cells, after, number)
        limits, _ = self._second.end_step(self._seconds, cells, after, number)
        self._firsts, self._seconds = {}, {}
        return limits, cells[:0]

    def start(self) -> State:
        """See :class:`OneByOne`."""
        return joined((self._first.start(), self._second.start()))

    def state(self) -> State:
        """See :class:`OneByOne`."""
        return joined((self._first.state(), self._second.state()))

    def extra(self) -> State:
        """See :class:`OneByOne`."""
        return {}

    def load(self, state: Mapping[str, Tensor], saved: Mapping[str, Any]) -> None:
        """See :class:`OneByOne`."""
        for i, stage in enumerate((self._first, self._second)):
            stage.load(part_of(state, i), saved)
