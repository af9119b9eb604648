"""Clip gradients that are part of a graph: the result is differentiable, and nothing is changed.

The same plan, layout and strategies as in place, on the backend whose verbs make new tensors. Only the policy for NaN and Inf
has to be other than in ``pipeline.py`` inside a ``torch.func`` transform, where nobody can look at a value.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradclip.backends import Functional, prepared, transforming
from gradclip.errors import NonFiniteGradientError, TargetError
from gradclip.nonfinite import Propagate, Raise, Skip, Zero
from gradclip.torch.extremes import SMALLEST
from gradclip.torch.pipeline import refuse_complex
from gradclip.torch.plan import Plan, Stage
from gradclip.torch.step import StepInputs

__all__ = ["clipped"]

Grads = Sequence[Tensor | None]


def clipped(plan: Plan, grads: Grads, step: StepInputs) -> tuple[list[Tensor | None], tuple[str, ...]]:
    """Return the clipped gradients, and the names for which the step was skipped, when all of them are None.

    Args:
        plan: a method that keeps no history, laid out over the gradients.
        grads: None where there is none.
        step: the weights and the step number.

    Raises:
        TargetError: gradients that cannot be clipped, or a policy that would have to look at values that are not known.
        NonFiniteGradientError: a NaN or Inf, under ``nonfinite="raise"``.
    """
    _refuse(plan, grads)
    found, bad = _without_nonfinite(plan, grads)
    if found is None:
        return [None] * len(grads), bad
    for stage in plan.stages:
        found = _through(stage, found, step)
    return [g.clone() if g is not None and g is given else g for g, given in zip(found, grads, strict=True)], ()


def _through(stage: Stage, grads: Grads, step: StepInputs) -> Grads:
    """Return the gradients after one clipping."""
    backend, strategy = Functional(grads, stage.layout.units), stage.strategy
    decision = strategy.decide(backend, step)
    unseen = transforming() or isinstance(stage.clipping.nonfinite, Propagate)  # as in place, which asks the host for nothing
    if not unseen and not stage.clipping.rescale.drops and bool((decision.factors < SMALLEST).any()):
        strategy.beyond(backend, decision, step)
    else:
        strategy.act(backend, decision, None, step)
    if not stage.clipping.rescale.drops or transforming():
        return backend.tensors
    dropped = strategy.dropped(strategy.question(decision).tolist())
    return [None if i in dropped else g for i, g in enumerate(backend.tensors)]


def _refuse(plan: Plan, grads: Grads) -> None:
    names = plan.target.names
    if plan.target.shards is not None:
        raise TargetError(
            "gradients that are cut over ranks and part of a graph cannot be clipped: detach() them for constants"
        )
    for grad, name in zip(grads, names, strict=True):
        if grad is not None and grad.layout == torch.sparse_coo:
            raise TargetError(
                f"the gradient of {name!r} is sparse and part of a graph: clip grad.to_dense(), or grad.detach() for constants"
            )
    prepared(grads, names, lambda i, grad: None)
    for stage in plan.stages:
        if not stage.clipping.threshold.symmetric:
            refuse_complex(stage, grads)


def _without_nonfinite(plan: Plan, grads: Grads) -> tuple[Grads | None, tuple[str, ...]]:
    """Follow the policy before anything is measured: what is left is finite, or None where the step is skipped."""
    policy = plan.clipping.nonfinite
    finite = [None if g is None else g.isfinite() for g in grads]
    if isinstance(policy, Propagate):
        return grads, ()
    if isinstance(policy, Zero):
        return _kept(grads, finite), ()
    if not transforming():
        bad = tuple(n for n, f in zip(plan.target.names, finite, strict=True) if f is not None and not bool(f.all()))
        if bad and isinstance(policy, Raise):
            raise NonFiniteGradientError(bad)
        return (None if bad else grads), bad
    if not isinstance(policy, Skip):
        raise TargetError(
            "nonfinite='raise' has to look at the gradients, whose values nobody knows inside vmap, grad and other transforms "
            "of torch.func: use 'skip', which makes them zeros there, 'zero' or 'propagate'"
        )
    each = [f.all() for f in finite if f is not None]
    if not each:
        return grads, ()
    all_finite = torch.stack([f.to(each[0].device) for f in each]).all()
    return _kept(grads, [None if g is None else all_finite.to(g.device) for g in grads]), ()


def _kept(grads: Grads, where: Grads) -> list[Tensor | None]:
    """Return the gradients where they are to be kept, and 0 elsewhere."""
    pairs = zip(grads, where, strict=True)
    return [None if g is None or w is None else torch.where(w, g, torch.zeros_like(g)) for g, w in pairs]
