"""The one way gradients flow: choose a backend, measure, limit, rescale, act; and what happens to a NaN or Inf.

Everything that can be refused is refused before the first gradient is changed. The host is asked once a step (for the
policies that must know whether a gradient is finite); on an accelerator not at all under ``Propagate``, nor under ``Skip``
where a fused optimizer takes over both the factor and the skip.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter

import torch
from torch import Tensor

from gradclip.backends import Backend, choose, choose_sharded, prepared, rescaled, take_all
from gradclip.errors import NonFiniteGradientError, TargetError
from gradclip.result import ClipResult
from gradclip.torch.plan import Plan, Stage
from gradclip.torch.step import Applied, Decision, State, StepInputs

__all__ = ["GradientList", "Gradients", "OfParameters", "refuse_complex", "run", "run_stage"]

_grad_of = attrgetter("grad")


class Gradients(ABC):
    """The gradients of one step, which can be replaced where they cannot be changed in place."""

    @abstractmethod
    def read(self) -> list[Tensor | None]:
        """Return the gradients, None where there is none."""

    @abstractmethod
    def put(self, i: int, grad: Tensor | None) -> None:
        """Put another tensor in place of gradient i, or drop it (None)."""


class OfParameters(Gradients):
    """The ``.grad`` of each parameter."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = parameters

    def read(self) -> list[Tensor | None]:
        """See :class:`Gradients`."""
        return list(map(_grad_of, self.parameters))

    def put(self, i: int, grad: Tensor | None) -> None:
        """See :class:`Gradients`."""
        self.parameters[i].grad = grad


class GradientList(Gradients):
    """Gradients without parameters."""

    def __init__(self, grads: list[Tensor | None]) -> None:
        self.grads = grads

    def read(self) -> list[Tensor | None]:
        """See :class:`Gradients`."""
        return list(self.grads)

    def put(self, i: int, grad: Tensor | None) -> None:
        """See :class:`Gradients`."""
        self.grads[i] = grad


def run(plan: Plan, gradients: Gradients, step: StepInputs) -> tuple[ClipResult, State]:
    """Clip gradients in place; return what was done and the next history.

    Args:
        plan: the method, laid out over the parameters.
        gradients: the gradient of each.
        step: weights, learning rates, state and step number.
    """
    with torch.no_grad():
        if len(plan.stages) == 1:
            return run_stage(plan.stages[0], gradients, step)
        before = None if plan.measuring is None else run_stage(plan.measuring, gradients, StepInputs())[0]
        states = plan.split(step.state)
        results: list[ClipResult] = []
        for i, stage in enumerate(plan.stages):
            own = StepInputs(step.weights, step.lrs, states[i], step.number)
            result, states[i] = run_stage(stage, gradients, own)
            results.append(result)
            if result.skipped:
                return result, plan.join(states)
        return _from_end_to_end(before or results[0], results), plan.join(states)


def run_stage(stage: Stage, gradients: Gradients, step: StepInputs) -> tuple[ClipResult, State]:
    """Clip gradients in place with one clipping."""
    backend = _backend(stage, gradients, step)
    strategy = stage.strategy
    at_once = strategy.at_once(backend, step) if stage.in_one_pass else None
    if at_once is not None:
        decision, applied = at_once
        if bool(decision.cells.isfinite().all()):
            return _result(stage, backend, decision, applied, True), decision.state
        return _on_nonfinite(stage, backend, decision, (), gradients, step)
    decision = strategy.decide(backend, step)
    answer = decision.answer
    if answer is None:
        finite = (decision.cells if decision.checked is None else decision.checked).isfinite().all()
        done = None if backend.on_host else _without_host(stage, backend, decision, finite, step)
        if done is not None:
            return done
        question = strategy.question(decision)
        is_finite, *answer = torch.cat([finite.to(decision.cells.dtype).reshape(1), question]).tolist()
        if not is_finite:
            return _on_nonfinite(stage, backend, decision, answer, gradients, step)
    applied = strategy.act(backend, decision, answer, step)
    if strategy.rescale.drops:
        for i in strategy.dropped(answer):
            gradients.put(i, None)
    return _result(stage, backend, decision, applied, True), decision.state


def _backend(stage: Stage, gradients: Gradients, step: StepInputs) -> Backend:
    """Choose the backend of this step.

    Raises:
        TargetError: gradients that cannot be clipped, or do not have the shapes of their parameters where that matters.
    """
    grads = gradients.read()
    if stage.goes_by_shape:
        stage.target.check_shapes(grads, step.weights if stage.clipping.threshold.needs_weights else None)
    if not stage.clipping.threshold.symmetric:
        refuse_complex(stage, grads)
    if stage.shards is not None:
        values, sparse = stage.shards.values(grads, stage.target.names, gradients.put)
        return choose_sharded(values, stage.layout.units, stage.shards, sparse)
    backend = take_all(grads, stage.layout.units)
    if backend is not None:  # plain tensors: nothing to prepare, nothing to refuse
        return backend
    values, sparse = prepared(grads, stage.target.names, gradients.put)
    return choose(values, stage.layout.units, sparse)


def refuse_complex(stage: Stage, grads: Sequence[Tensor | None]) -> None:
    """Refuse complex gradients, for an interval that is not symmetric."""
    for grad, name in zip(grads, stage.target.names, strict=True):
        if grad is not None and grad.is_complex():
            raise TargetError(f"{name!r} is complex, which has no lower and upper bound: use value(0.5), one bound on |z|")


def _without_host(
    stage: Stage, backend: Backend, decision: Decision, finite: Tensor, step: StepInputs
) -> tuple[ClipResult, State] | None:
    """Do all of it on the device, where the policy bears that; None where it does not, and nothing has been changed."""
    policy, strategy = stage.clipping.nonfinite, stage.strategy
    skipped: Tensor | bool = False
    if policy.word == "propagate":
        applied = strategy.act(backend, decision, None, step)
    elif policy.word == "skip" and strategy.carried(decision.factors, finite, step):  # the optimizer drops the step itself
        after = torch.where(finite, decision.cells * stage.layout.cell_factors(decision.factors), 0.0)
        applied, skipped = Applied(after, (decision.factors != 1).any() & finite), ~finite
    else:
        return None
    before = step.state or stage.clipping.threshold.init(torch.zeros_like(decision.factors))
    kept = {key: torch.where(finite, new, before.get(key, new)) for key, new in decision.state.items()}
    return replace(_result(stage, backend, decision, applied, finite), skipped=skipped), kept


def _on_nonfinite(
    stage: Stage, backend: Backend, decision: Decision, answer: Sequence[float], gradients: Gradients, step: StepInputs
) -> tuple[ClipResult, State]:
    """Follow the policy; the threshold's state stays what it was. Where every element is finite, there is nothing to follow."""
    before: State = step.state or {}
    bad = _with_nonfinite(stage, backend, decision.cells)
    if not any(bad):
        return _act_beyond(stage, backend, decision, gradients, step)
    names = tuple(name for name, is_bad in zip(stage.target.names, bad, strict=True) if is_bad)
    match stage.clipping.nonfinite.word:
        case "raise":
            raise NonFiniteGradientError(names)
        case "skip":
            for i in range(len(backend.tensors)):
                gradients.put(i, None)
            result = _result(stage, backend, decision, Applied(torch.zeros_like(decision.cells), False), False)
            return replace(result, nonfinite_names=names, skipped=True), before
        case "zero":
            backend.zero_nonfinite(bad)
            result, state = _act_on_finite(stage, backend, gradients, step)
            return replace(result, finite=False, nonfinite_names=names, clipped=True), state
    applied = stage.strategy.act(backend, decision, answer, step)
    return replace(_result(stage, backend, decision, applied, False), nonfinite_names=names), before


def _with_nonfinite(stage: Stage, backend: Backend, cells: Tensor) -> list[bool]:
    """Return which tensors hold a NaN or an Inf: by their elements, since the norm of finite ones can be beyond float64.

    The largest element cannot, unless it is complex; by its size an Inf is known also when it has been clamped, and where
    tensors are cut over ranks, that of all parts.
    """
    if backend.overflows(stage.layout.norm.p):
        if stage.shards is None:
            return backend.nonfinite()
        cells = backend.norms(math.inf)
    return [not finite for finite in stage.layout.largest_in_tensors(cells).isfinite().tolist()]


def _act_on_finite(stage: Stage, backend: Backend, gradients: Gradients, step: StepInputs) -> tuple[ClipResult, State]:
    """Decide and act on gradients of which every element is finite."""
    strategy, decision = stage.strategy, stage.strategy.decide(backend, step)
    if decision.answer is None and not bool(
        (decision.cells if decision.checked is None else decision.checked).isfinite().all()
    ):
        return _act_beyond(stage, backend, decision, gradients, step)
    answer = decision.answer or strategy.question(decision).tolist()
    applied = strategy.act(backend, decision, answer, step)
    for i in strategy.dropped(answer):
        gradients.put(i, None)
    return _result(stage, backend, decision, applied, True), decision.state


def _act_beyond(
    stage: Stage, backend: Backend, decision: Decision, gradients: Gradients, step: StepInputs
) -> tuple[ClipResult, State]:
    """Act on finite gradients that have a norm beyond float64."""
    layout, shift = stage.layout, 2.0**-512
    look = rescaled(backend, shift)  # the mean of what is beyond float64 may be within it
    cells = look.norms(layout.norm.p)
    total, each = layout.total(look, cells) / shift, layout.tensor_norms(look, cells) / shift
    decision, applied = stage.strategy.beyond(backend, decision, step)
    for i in stage.strategy.dropped(stage.strategy.question(decision).tolist()):
        gradients.put(i, None)
    result = _result(stage, backend, decision, applied, True)
    norms = torch.where(result.tensor_norms.isfinite(), result.tensor_norms, each)
    return replace(result, norm=total, tensor_norms=norms), decision.state


def _result(stage: Stage, backend: Backend, decision: Decision, applied: Applied, finite: Tensor | bool) -> ClipResult:
    """Return what was done, complete: nothing is left to be worked out or communicated when it is read."""
    layout, cells, after = stage.layout, decision.cells, applied.cells
    norm = layout.total(backend, cells) if decision.total is None else decision.total
    clipped_norm = norm if after is cells else applied.total
    if clipped_norm is None:
        clipped_norm = layout.total(backend, after)
    if not layout.cells_are_tensors:
        cells, after = layout.tensor_norms(backend, cells), layout.tensor_norms(backend, after)
    return ClipResult(
        names=stage.target.names,
        norm=norm,
        clipped_norm=clipped_norm,
        tensor_norms=cells,
        clipped_tensor_norms=after,
        limits=decision.limits,
        factors=decision.factors,
        clipped=applied.clipped,
        finite=finite,
    )


def _from_end_to_end(before: ClipResult, results: list[ClipResult]) -> ClipResult:
    """Return one result for all stages: what was there before the first, and after the last."""
    last = results[-1]
    clipped: Tensor | bool = False
    for result in (before, *results):
        clipped = clipped | result.clipped
    return replace(
        last,
        factors=last.factors[:0],
        clipped=clipped,
        finite=before.finite,
        nonfinite_names=before.nonfinite_names,
        norm=before.norm,
        tensor_norms=before.tensor_norms,
    )
