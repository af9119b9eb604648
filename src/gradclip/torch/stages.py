"""A method's stages over one set of parameters: one for a ``Clipping``, two in turn for a ``Chain``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gradclip.backends import kernel
from gradclip.chain import Chain
from gradclip.clipping import Clipping
from gradclip.errors import StateError
from gradclip.nonfinite import Propagate
from gradclip.rescales import Hard
from gradclip.result import ClipResult
from gradclip.thresholds import Constant
from gradclip.torch.deciding import Known, State
from gradclip.torch.pipeline import Put, run
from gradclip.torch.plan import Plan
from gradclip.torch.targets import Clippable, Target, resolve

__all__ = ["PREFIXES", "Stages", "joined", "part_of", "stages_for"]

PREFIXES = ("first.", "second.")
"""Before the names of each stage's arrays, where there are two."""


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

    def up_to_date(self, grads: Callable[[], list[Tensor | None]], history: State) -> Stages:
        """Return the stages laid out over the shapes that the parameters have now: these, unless one was given other ``.data``.

        Args:
            grads: reads the gradients, which have other shapes then, too.
            history: what was learnt with these stages.

        Raises:
            StateError: the history is of blocks that are no more.
            TargetError: the method does not fit the new shapes.
        """
        if not any(plan.goes_by_shape for plan in self.plans) or not kernel.reshaped(grads(), self.target.shapes):
            return self
        target = self.target.up_to_date()
        anew = Stages.over(self.clipping, target)
        anew.check()
        pairs = zip(self.plans, anew.plans, strict=True)
        if history and any(old.clipping.threshold.stateful and not _same_blocks(old, new) for old, new in pairs):
            raise StateError(
                f"{self.clipping} has a history of blocks that are no more, since a parameter was given another shape: make a "
                "new Clipper, or detach() and attach() again, to begin a new history"
            )
        return anew

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
        states = [part_of(known.state or {}, prefix) for prefix in PREFIXES]
        results: list[ClipResult] = []
        for i, plan in enumerate(self.plans):
            result, states[i] = run(plan, grads(), put, replace(known, state=states[i], carry=None))
            results.append(result)
            if result.skipped:
                return result, joined(states)
        return _from_end_to_end(before or results[0], results), joined(states)

    @cached_property
    def _alike(self) -> bool:
        """Both stages measure the same, so that the first one's norms are those before both."""
        first, second = (plan.clipping for plan in self.plans)
        return (first.scope, first.norm) == (second.scope, second.norm)

    @cached_property
    def _measuring(self) -> Plan:
        """Measures what the last stage does, and changes nothing."""
        last = self.plans[-1].clipping
        return Plan(Clipping(last.scope, last.norm, Constant(math.inf), Hard(), Propagate()), self.target)


def _same_blocks(old: Plan, new: Plan) -> bool:
    """Whether what was learnt of the old blocks holds for the new."""
    return (old.partition.first, old.partition.cells) == (new.partition.first, new.partition.cells)


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
    if stages is None or stages.clipping != clipping or before != tree or stages.target.up_to_date() is not stages.target:
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


def _from_end_to_end(before: ClipResult, results: list[ClipResult]) -> ClipResult:
    """Return one result for both stages: what was there before the first, and after the last."""
    first, last = results
    return replace(
        last,
        factors=last.factors[:0],
        clipped=first.clipped | last.clipped,
        finite=first.finite,
        nonfinite_names=first.nonfinite_names,
        _cells=before._cells,
    )


def part_of(state: State, prefix: str) -> State:
    """Return one stage's arrays, under their own names, of a chain's state."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def joined(states: Sequence[State]) -> State:
    """Return a chain's state from those of its stages, under the names that are saved."""
    pairs = zip(PREFIXES, states, strict=True)
    return {prefix + key: value for prefix, state in pairs for key, value in state.items()}
