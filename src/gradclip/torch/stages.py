"""A method's stages over one set of parameters: one for a ``Clipping``, several in turn for a ``Chain``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import or_
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gradclip.chain import Chain
from gradclip.clipping import Clipping
from gradclip.nonfinite import Propagate
from gradclip.rescales import Hard
from gradclip.result import ClipResult
from gradclip.thresholds import Constant
from gradclip.thresholds.rule import joined, part_of
from gradclip.torch.deciding import Known, State
from gradclip.torch.pipeline import Put, run
from gradclip.torch.plan import Plan
from gradclip.torch.targets import Clippable, Target, resolve

__all__ = ["Stages", "stages_for"]


@dataclass(frozen=True)
class Stages:
    """The plan of each stage."""

    clipping: Clipping | Chain
    plans: tuple[Plan, ...]

    @staticmethod
    def over(clipping: Clipping | Chain, target: Target) -> Stages:
        """Lay a method out over parameters."""
        return Stages(clipping, tuple(Plan(stage, target) for stage in clipping.stages))

    @property
    def target(self) -> Target:
        """The parameters."""
        return self.plans[0].target

    @cached_property
    def needs_lr(self) -> bool:
        """One of them reads the learning rate."""
        return any(plan.clipping.threshold.needs_lr for plan in self.plans)

    def check(self) -> None:
        """Refuse a method that does not fit these parameters.

        Raises:
            TargetError: what does not fit.
        """
        for plan in self.plans:
            _ = plan.partition

    def init(self) -> State:
        """Return the history before the first step, for its names and shapes: on the meta device, where it takes no memory."""
        states = [
            plan.clipping.threshold.init(torch.zeros(plan.partition.count, dtype=torch.float64, device="meta"))
            for plan in self.plans
        ]
        return states[0] if len(states) == 1 else joined(states)

    def run(self, grads: Callable[[], list[Tensor | None]], put: Put, known: Known) -> tuple[ClipResult, State]:
        """Clip gradients in place; return what was done and the next history.

        Args:
            grads: reads the gradients, which a stage may have replaced.
            put: as :func:`gradclip.torch.pipeline.run` takes it.
            known: the history of all stages, and the rest.
        """
        if len(self.plans) == 1:
            return run(self.plans[0], grads(), put, known)
        before, _ = (None, None) if self._alike else run(self._measuring, grads(), put, Known())
        states = [part_of(known.state or {}, i) for i in range(len(self.plans))]
        results: list[ClipResult] = []
        for i, plan in enumerate(self.plans):
            result, states[i] = run(plan, grads(), put, replace(known, state=states[i], carry=None))
            results.append(result)
            if result.skipped:
                return result, joined(states)
        return _from_end_to_end(before or results[0], results), joined(states)

    @cached_property
    def _alike(self) -> bool:
        """The first and the last stage measure the same, so that the first one's norms are those before all."""
        first, last = self.plans[0].clipping, self.plans[-1].clipping
        return (first.scope, first.norm) == (last.scope, last.norm)

    @cached_property
    def _measuring(self) -> Plan:
        """Measures what the last stage does, and changes nothing."""
        last = self.plans[-1].clipping
        return Plan(Clipping(last.scope, last.norm, Constant(math.inf), Hard(), Propagate()), self.target)


_kept: WeakKeyDictionary[nn.Module, tuple[list[int | str], Stages]] = WeakKeyDictionary()
"""The last layout over each model, and the model's tree at that time."""


def stages_for(clipping: Clipping | Chain, target: Clippable, optimizer: torch.optim.Optimizer | None = None) -> Stages:
    """Lay a method out over what a user passed; the last layout of each model is kept, and used again while it fits.

    Raises:
        TypeError: gradients instead of parameters, or something that is neither.
        TargetError: an exhausted iterator, or a parameter the optimizer does not own.
    """
    if optimizer is not None or not isinstance(target, nn.Module):
        return Stages.over(clipping, resolve(target, optimizer))
    tree = _tree(target)
    before, stages = _kept.get(target, (None, None))
    if stages is None or stages.clipping != clipping or before != tree or not _same_shapes(stages.target):
        stages = Stages.over(clipping, resolve(target))
        _kept[target] = tree, stages
    return stages


def _tree(model: nn.Module) -> list[int | str]:
    """Return the names in a model and the identities of its parameters, in its order: equal as long as nothing has changed."""
    found: list[int | str] = []
    todo: list[nn.Module | None] = [model]
    for module in todo:
        if module is not None:
            found += module._parameters
            found += map(id, module._parameters.values())
            found += module._modules
            todo += module._modules.values()
    return found


def _same_shapes(target: Target) -> bool:
    return all([p.shape == entry.shape for p, entry in zip(target.parameters, target.entries, strict=True)])


def _from_end_to_end(before: ClipResult, results: list[ClipResult]) -> ClipResult:
    """Return one result for all stages: what was there before the first, and after the last."""
    first, last = results[0], results[-1]
    return replace(
        last,
        factors=last.factors[:0],
        clipped=reduce(or_, [result.clipped for result in results]),
        finite=first.finite,
        nonfinite_names=first.nonfinite_names,
        _cells=before._cells,
    )
