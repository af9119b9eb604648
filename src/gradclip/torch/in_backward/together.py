"""Methods whose blocks span tensors, carried out one gradient at a time: exactly, in two passes, or from an estimate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gradclip._arrays import Array
from gradclip.backends.torch_norms import norm_dtype
from gradclip.backends.torch_payload import Payload
from gradclip.clipping import Clipping
from gradclip.errors import TargetError
from gradclip.norms import Norm
from gradclip.rescales import Clamp, Drop, Normalize
from gradclip.result import ClipResult
from gradclip.scopes import PerTensor
from gradclip.thresholds import Context, Threshold
from gradclip.thresholds import State as RuleState
from gradclip.torch.deciding import Decision, Known, State, Step, decide
from gradclip.torch.in_backward.one_by_one import OneByOne, Rates, Results, clip_one, one_tensor, stand_ins, start_of
from gradclip.torch.plan import Plan

__all__ = ["Together"]


class Together(OneByOne):
    """Clip tensor by tensor what is measured together.

    What a tensor is multiplied by is either known, because a pass before has measured all gradients (:meth:`foresee`: exact),
    or it is estimated: gradients that have not appeared yet count with their norm of the last step.

    Args:
        plan: the method over all parameters.
        rates: the learning rates, where the threshold needs them.
        approximate: whether it may be estimated.

    Raises:
        TargetError: blocks that are parts of a tensor.
    """

    def __init__(self, plan: Plan, rates: Rates, approximate: bool) -> None:
        if not plan.per_tensor or isinstance(plan.clipping.rescale, Clamp):
            raise TargetError(
                f"{plan.clipping} looks at other tensors to clip parts of one: use gradclip.Clipper after backward()"
            )
        self._plan, self._rates, self._approximate = plan, rates, approximate
        self._plans = [one_tensor(plan, i, self._share(i)) for i in range(len(plan.target.parameters))]
        device = next((p.device for p in plan.target.parameters), torch.device("cpu"))
        self._last = torch.zeros(len(self._plans), dtype=norm_dtype(device), device=device)
        """The norms of the last step, which stand for the gradients that have not appeared yet."""
        self._now, self._seen = self._last.clone(), self._last > 0
        self._weights: Tensor | None = None
        self._foreseen: Decision | None = None
        self._history: State = {}

    def foresee(self, cells: Tensor, present: Sequence[bool], number: int) -> None:
        """Decide a whole step by the norms that a pass before it has measured."""
        self._foreseen = self._decide(cells.to(self._last), present, number)

    def forget(self) -> None:
        """See :class:`OneByOne`."""
        self._foreseen = self._weights = None

    def clip(self, i: int, number: int) -> ClipResult:
        """See :class:`OneByOne`.

        Raises:
            TargetError: nothing was measured before, and nothing may be estimated.
        """
        if self._foreseen is None and not self._approximate:
            raise TargetError(
                f"{self._plan.clipping} needs the norms of all gradients, which are known only after the last one: run "
                "backward() twice, first inside `with in_backward.measuring():` (exact), or write "
                'InBackward(..., approximate=True), or use a method that goes tensor by tensor, such as "agc:0.01"'
            )
        result, _ = clip_one(self._plans[i], number=number)
        if not result.skipped:
            self._now[i], self._seen[i] = result._cells[0], True
        return result

    def factor(self, i: int, norm: Tensor, number: int) -> Tensor:
        """Return what tensor i, which has this norm, is multiplied by."""
        decision = self._foreseen
        if decision is None:
            expected = torch.where(self._seen, self._now, self._last)
            expected[i] = norm
            decision = self._decide(expected, (expected != 0).tolist() if self._presence_counts else None, number)
        return self._plan.cell_factors(decision.factors)[i]

    def end_step(self, results: Results, cells: Tensor, after: Tensor, number: int) -> tuple[Tensor | float, Tensor]:
        """See :class:`OneByOne`. The factor of a block is what was left of its norm."""
        finite = cells.isfinite()
        measured = torch.where(finite, cells, 0.0).to(self._last)
        decision = self._foreseen or self._decide(measured, [i in results for i in range(len(self._plans))], number)
        if bool(finite.all()):
            self._history = decision.state
        self._last = torch.where(finite.to(self._last.device), measured, self._last)
        self._seen = torch.zeros_like(self._seen)
        self.forget()
        norms, left = (self._plan.block_norms(x, self._everything) for x in (cells, after))
        return decision.limits, torch.where(norms == left, 1.0, left / norms)

    def start(self) -> State:
        """See :class:`OneByOne`."""
        return start_of(self._plan)

    def state(self) -> State:
        """See :class:`OneByOne`."""
        return {key: value.clone() for key, value in self._history.items()}

    def extra(self) -> State:
        """See :class:`OneByOne`."""
        return {"last_norms": self._last.clone()}

    def load(self, state: Mapping[str, Tensor], saved: Mapping[str, Any]) -> None:
        """See :class:`OneByOne`."""
        self._history = {key: value.to(self._last.device, copy=True) for key, value in state.items()}
        self._last = torch.zeros_like(self._last).copy_(saved.get("last_norms", torch.zeros(1)))

    def _decide(self, cells: Tensor, present: Sequence[bool] | None, number: int) -> Decision:
        """Decide by norms instead of gradients, which may be gone; ``present`` matters only where ``_presence_counts``."""
        parameters, rates = self._plan.target.parameters, self._rates
        lrs = None if rates is None else [rates(i) for i in range(len(parameters))]
        known = Known(parameters, lrs, self._history, number)
        if self._weights is None and self._plan.clipping.threshold.needs_weights:  # before the first of them is stepped
            self._weights = Step(self._plan, self._everything, known).measure()
        gradients = self._everything if present is None else stand_ins(self._plan, present)
        return decide(_Measured(self._plan, gradients, known, cells, self._weights))

    @cached_property
    def _presence_counts(self) -> bool:
        """Whether it matters for a block which of its gradients are there, and not only how large they are."""
        rule = self._plan.clipping.threshold
        return rule.needs_weights or rule.needs_lr or self._plan.clipping.norm.mean

    @cached_property
    def _everything(self) -> list[Payload]:
        return stand_ins(self._plan, [True] * len(self._plans))

    def _share(self, i: int) -> Clipping:
        """The method for tensor i alone that brings it to its share of what is left of its block."""
        drops = isinstance(self._plan.clipping.rescale, Drop)
        rule = _Share(self, i, drops)
        norm, policy = Norm(self._plan.clipping.norm.p), self._plan.clipping.nonfinite
        return Clipping(PerTensor(), norm, rule, Drop() if drops else Normalize(), policy)


@dataclass(frozen=True)
class _Share(Threshold):
    """The norm that one tensor keeps when its block is clipped: its own, times the block's factor."""

    together: Together
    i: int
    drops: bool

    def limits(self, norms: Array, state: RuleState, context: Context) -> tuple[Array | float, RuleState]:
        """See :class:`Threshold`; a dropped block has a limit that even a norm of 0 is above."""
        factor = self.together.factor(self.i, norms, int(context.step))
        return torch.where(factor > 0, math.inf, -1.0).reshape(1) if self.drops else norms * factor, state


@dataclass(frozen=True)
class _Measured(Step):
    """A step whose norms are known."""

    cells: Tensor
    weights: Tensor | None

    def measure(self, payloads: Sequence[Payload] | None = None) -> Tensor:
        """Return the norms of the gradients as they were when they appeared, and of the weights as the step found them."""
        if payloads is None:
            return self.cells
        assert self.weights is not None
        there = torch.tensor([payload.values is not None for payload in payloads], device=self.cells.device)
        return torch.where(there, self.weights, 0.0)
