"""One tensor at a time: how a method is carried out where each gradient is clipped as it appears."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from gradclip.backends.torch_payload import Payload
from gradclip.clipping import Clipping
from gradclip.nonfinite import Nonfinite
from gradclip.rescales import Hard
from gradclip.result import ClipResult
from gradclip.scopes import Global, PerElement, PerTensor, PerUnit, Scope
from gradclip.thresholds import Constant
from gradclip.torch.deciding import Known, State
from gradclip.torch.in_backward.histories import Histories
from gradclip.torch.pipeline import run
from gradclip.torch.plan import Plan
from gradclip.torch.targets import Target

__all__ = [
    "Alone",
    "OneByOne",
    "Rates",
    "Results",
    "clip_one",
    "measuring",
    "one_tensor",
    "stand_ins",
    "stands_alone",
    "start_of",
]

Results: TypeAlias = Mapping[int, ClipResult]
"""What was done to the gradients that appeared in a step, by the parameter's place."""

Rates: TypeAlias = Callable[[int], float] | None
"""The learning rate of each parameter, by its place."""


class OneByOne(ABC):
    """A way to clip gradients one by one, and to say afterwards what was done to all of them."""

    @abstractmethod
    def clip(self, i: int, number: int) -> ClipResult:
        """Clip the gradient of parameter i, in step ``number``."""

    @abstractmethod
    def end_step(self, results: Results, cells: Tensor, after: Tensor, number: int) -> tuple[Tensor | float, Tensor]:
        """End a step; return the limits and the factors of the blocks.

        Args:
            results: what was done to each gradient.
            cells: the norms of all cells before, 0 where no gradient appeared.
            after: the same after clipping.
            number: the step's number.
        """

    @abstractmethod
    def foresee(self, cells: Tensor, present: Sequence[bool], number: int) -> None:
        """Learn the norms that the next step will have, and which gradients there will be."""

    def forget(self) -> None:  # noqa: B027 (most have nothing to forget)
        """Forget the norms that were foreseen, if nothing came of them."""

    @abstractmethod
    def start(self) -> State:
        """Return the threshold's state before the first step, for its names and shapes: on the meta device."""

    @abstractmethod
    def state(self) -> State:
        """Return the threshold's state, in the form that a ``Clipper`` keeps."""

    @abstractmethod
    def extra(self) -> State:
        """Return what else has to be saved."""

    @abstractmethod
    def load(self, state: Mapping[str, Tensor], saved: Mapping[str, Any]) -> None:
        """Take up a threshold's state, and what else was saved."""


class Alone(OneByOne):
    """Methods whose blocks lie within one tensor: its gradient is all it takes, so the result is exact.

    Args:
        plan: the method over all parameters.
        rates: the learning rates, where the threshold needs them.
    """

    def __init__(self, plan: Plan, rates: Rates) -> None:
        self._plan, self._rates = plan, rates
        own = replace(plan.clipping, scope=_scope_of_one(plan.clipping))
        free = measuring(plan.clipping, own.nonfinite)
        self._included = [i for i, first in enumerate(plan.partition.first) if first is not None]
        self._plans = [one_tensor(plan, i, free if first is None else own) for i, first in enumerate(plan.partition.first)]
        self._sizes = [0 if f is None else n for f, n in zip(plan.partition.first, plan.partition.cells, strict=True)]
        self._histories = Histories(own.threshold, self._sizes, [p.device for p in plan.target.parameters])

    def clip(self, i: int, number: int) -> ClipResult:
        """See :class:`OneByOne`."""
        before = self._histories.of(i)
        result, state = clip_one(self._plans[i], before, self._rates and [self._rates(i)], number)
        if state is not before:
            self._histories.keep(i, state)
        return result

    def end_step(self, results: Results, cells: Tensor, after: Tensor, number: int) -> tuple[Tensor | float, Tensor]:
        """See :class:`OneByOne`. Of elements neither is kept: that would be a number for each."""
        self._histories.end_step()
        none = cells.new_zeros(0)
        if isinstance(self._plan.clipping.scope, PerElement):
            return self._one_limit(results) if self._plan.clamps else none, none
        factors = [results[i].factors.to(cells) if i in results else cells.new_ones(self._sizes[i]) for i in self._included]
        if self._plan.clipping.threshold.uniform:
            return self._one_limit(results), torch.cat([none, *factors])
        return torch.cat([none, *(self._limits(i, results, cells) for i in self._included)]), torch.cat([none, *factors])

    def foresee(self, cells: Tensor, present: Sequence[bool], number: int) -> None:
        """See :class:`OneByOne`; nothing of it is needed."""

    def start(self) -> State:
        """See :class:`OneByOne`."""
        return start_of(self._plan)

    def state(self) -> State:
        """See :class:`OneByOne`."""
        return self._histories.joined()

    def extra(self) -> State:
        """See :class:`OneByOne`."""
        return {}

    def load(self, state: Mapping[str, Tensor], saved: Mapping[str, Any]) -> None:
        """See :class:`OneByOne`."""
        self._histories.load(state)

    def _one_limit(self, results: Results) -> Tensor | float:
        return next((results[i].limits for i in self._included if i in results), math.inf)

    def _limits(self, i: int, results: Results, like: Tensor) -> Tensor:
        """The limits of tensor i's blocks; inf where it had no gradient that could be limited."""
        unlimited = like.new_full((self._sizes[i],), math.inf)
        return unlimited.copy_(torch.as_tensor(results[i].limits)) if i in results else unlimited


def stands_alone(clipping: Clipping) -> bool:
    """Whether each tensor's gradient is all it takes to clip it."""
    return isinstance(clipping.scope, (PerTensor, PerUnit, PerElement)) and not clipping.threshold.couples


def start_of(plan: Plan) -> State:
    """Return a threshold's state before the first step, without its memory."""
    return plan.clipping.threshold.init(torch.zeros(plan.partition.count, dtype=torch.float64, device="meta"))


def measuring(clipping: Clipping, nonfinite: Nonfinite) -> Clipping:
    """Return the method that measures what this one measures, and clips nothing."""
    return Clipping(_scope_of_one(clipping), clipping.norm, Constant(math.inf), Hard(), nonfinite)


def _scope_of_one(clipping: Clipping) -> Scope:
    """The scope over one tensor; where that is one block, ``Global`` says the same and is quicker."""
    return replace(clipping.scope, exclude=()) if isinstance(clipping.scope, (PerUnit, PerElement)) else Global()


def one_tensor(plan: Plan, i: int, clipping: Clipping) -> Plan:
    """Lay a method out over parameter i alone."""
    return Plan(clipping, Target((plan.target.parameters[i],), (plan.target.entries[i],)))


def stand_ins(plan: Plan, present: Sequence[bool]) -> list[Payload]:
    """Return parameters in place of their gradients, which may be gone: the same shapes on the same devices."""
    pairs = zip(plan.target.parameters, present, strict=True)
    return [Payload(p.detach() if there else None, p.shape) for p, there in pairs]


def clip_one(
    plan: Plan, state: State | None = None, lrs: list[float] | None = None, number: int = 0
) -> tuple[ClipResult, State]:
    """Clip the gradient of a plan's one parameter; return what was done and the threshold's next state."""
    (parameter,) = plan.target.parameters

    def put(_: int, grad: Tensor | None) -> None:
        parameter.grad = grad

    return run(plan, [parameter.grad], put, Known([parameter], lrs, state, number))
