"""A method laid out over one set of parameters: a stage for each clipping of it, prepared once and used every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gradclip._cached import cached_property
from gradclip.backends import reshaped
from gradclip.chain import Chain
from gradclip.clipping import Clipping
from gradclip.errors import TargetError
from gradclip.nonfinite import Propagate
from gradclip.rescales import Hard
from gradclip.thresholds import Constant
from gradclip.thresholds.rule import joined, part_of
from gradclip.torch.current_parameters import tree_of
from gradclip.torch.layout import Layout
from gradclip.torch.step import State
from gradclip.torch.strategies import strategy_for
from gradclip.torch.strategy import Strategy
from gradclip.torch.targets import Clippable, Target, resolve

__all__ = ["Plan", "Stage", "plan_for"]


class Stage:
    """One clipping and the parameters it is for.

    Raises:
        TargetError: the method does not fit these parameters.
    """

    def __init__(self, clipping: Clipping, target: Target) -> None:
        self.clipping, self.target, self.shards = clipping, target, target.shards
        entries = target.local_entries if clipping.scope.per_element else target.entries
        partition = clipping.scope.partition(entries)
        threshold = clipping.threshold
        target.check_method(clipping)
        if threshold.groups not in (None, partition.count):
            raise TargetError(f"{threshold.groups} thresholds for {partition.count} groups: give one for each, or one for all")
        self.layout = Layout(partition, entries, clipping.norm, target.shards)
        self.strategy: Strategy = strategy_for(clipping, self.layout)
        self.in_one_pass = self.strategy.in_one_pass and clipping.nonfinite.word == "skip" and target.shards is None
        """A NaN or Inf may be found when other gradients have been clipped, since all are dropped then."""
        self.goes_by_shape = self.strategy.goes_by_shape or clipping.norm.mean or threshold.needs_weights
        """It matters which shapes the parameters had when this was laid out: for parts of tensors, and for means."""

    def init(self, device: torch.device | str = "meta") -> State:
        """Return the threshold's state before the first step; on the meta device for its names and shapes, without memory."""
        return self.clipping.threshold.init(torch.zeros(self.layout.count, dtype=torch.float64, device=device))


class Plan:
    """A method over parameters: one stage for a ``Clipping``, several in turn for a ``Chain``.

    Raises:
        TargetError: the method does not fit these parameters.
    """

    def __init__(self, clipping: Clipping | Chain, target: Target) -> None:
        self.clipping, self.target = clipping, target
        self.stages = tuple(Stage(stage, target) for stage in clipping.stages)
        self.needs_lr = any(stage.clipping.threshold.needs_lr for stage in self.stages)
        self.stateful = any(stage.clipping.threshold.stateful for stage in self.stages)
        self.goes_by_shape = any(stage.goes_by_shape for stage in self.stages)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The parameters, each once."""
        return self.target.parameters

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters, in order."""
        return self.target.names

    def init(self, device: torch.device | str = "meta") -> State:
        """Return the history of all stages before the first step; on the meta device for its names and shapes."""
        return self.join([stage.init(device) for stage in self.stages])

    def split(self, state: State | None) -> list[State]:
        """Return the history of each stage, under the names that its rule gives."""
        if len(self.stages) == 1:
            return [state or {}]
        return [part_of(state or {}, i) for i in range(len(self.stages))]

    def join(self, states: Sequence[State]) -> State:
        """Return the history of all stages as one, each under the stage's position where there are several."""
        return states[0] if len(states) == 1 else joined(states)

    @cached_property
    def measuring(self) -> Stage | None:
        """What measures the gradients before the first stage as the last one does; None where the first does so itself."""
        first, last = self.stages[0].clipping, self.stages[-1].clipping
        policy = first.nonfinite if first.nonfinite.word == "zero" else Propagate()
        if (first.scope, first.norm) == (last.scope, last.norm):
            return None
        return Stage(Clipping(last.scope, last.norm, Constant(math.inf), Hard(), policy), self.target)


_kept: WeakKeyDictionary[nn.Module, tuple[list[int | str], Plan]] = WeakKeyDictionary()
"""The last plan over each model, and the model's tree at that time."""


def plan_for(
    clipping: Clipping | Chain, target: Clippable, optimizer: torch.optim.Optimizer | None = None, group: Any = None
) -> Plan:
    """Lay a method out over what a user passed; the last plan of each model is kept, and used again while it fits.

    Raises:
        TypeError: gradients instead of parameters, or something that is neither.
        TargetError: an exhausted iterator, a parameter the optimizer does not own, or a method that does not fit.
    """
    if optimizer is not None or group is not None or not isinstance(target, nn.Module):
        return Plan(clipping, resolve(target, optimizer, group, str(clipping)))
    tree = tree_of(target)
    before, plan = _kept.get(target, (None, None))
    same = plan is not None and (plan.clipping is clipping or plan.clipping == clipping)
    if plan is None or not same or before != tree or reshaped(plan.target.parameters, plan.target.shapes):
        plan = Plan(clipping, resolve(target, method=str(clipping)))
        _kept[target] = tree, plan
    return plan
