"""Clip once: in place, out of place, or only measure."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from gradclip.backends import in_graph, shards_of
from gradclip.clipping import Clipping, as_clipping
from gradclip.errors import TargetError
from gradclip.norms import Norm, as_norm
from gradclip.recipes import tensor_norm
from gradclip.result import ClipResult
from gradclip.scopes import Entry
from gradclip.torch import differentiable
from gradclip.torch.not_compiled import not_compiled
from gradclip.torch.pipeline import GradientList, OfParameters, run
from gradclip.torch.plan import Plan, plan_for
from gradclip.torch.rates import effective_rates
from gradclip.torch.skips import SKIPPED_STEP
from gradclip.torch.step import StepInputs
from gradclip.torch.targets import Clippable, Target, resolve

if TYPE_CHECKING:
    from gradclip.chain import Chain

__all__ = ["clip", "clip_", "tensor_norms"]

Grads = TypeVar("Grads")


@not_compiled
def clip_(target: Clippable, clipping: Clipping | Chain | str, *, step: int = 0, group: Any = None) -> ClipResult:
    """Clip the gradients of a model, an optimizer or parameters in place, once.

    Between ``loss.backward()`` and ``optimizer.step()``; :func:`gradclip.attach` finds the right place by itself.

    Args:
        target: a model, an optimizer (its param groups are the groups), one parameter, or parameters, named or not.
        clipping: a recipe such as ``global_norm(1.0)``, or its spelling ``"global_norm:1.0"``.
        step: the step a scheduled threshold is at.
        group: the process group over whose ranks plain tensors are cut, if they are; see :class:`Clipper`.

    Returns:
        The norms before and after, still on the device.

    Raises:
        TypeError: gradients instead of parameters.
        TargetError: an exhausted iterator, or a method that does not fit these parameters.
        ValueError: a method that keeps a history: use ``Clipper`` or ``attach``.
        NonFiniteGradientError: a NaN or Inf, under ``nonfinite="raise"``.

    >>> model = nn.Linear(3, 1, bias=False)
    >>> model.weight.grad = torch.tensor([[1.0, 2.0, 2.0]])
    >>> clip_(model, "global_norm:1.5")
    ClipResult(norm=3, clipped_norm=1.5, coefficient=0.5, clipped, worst='weight')
    >>> model.weight.grad
    tensor([[0.5000, 1.0000, 1.0000]])
    """
    plan = plan_for(clipping if type(clipping) is Clipping else as_clipping(clipping), target, group=group)
    if plan.stateful:
        _refuse_history(plan.clipping)
    lrs = _learning_rates(plan, target) if plan.needs_lr else None
    result = clip_once(plan, lrs, step)
    if result.skipped:
        warnings.warn(SKIPPED_STEP.warning(result.nonfinite_names), RuntimeWarning, stacklevel=2)
    return result


def clip_once(plan: Plan, lrs: Sequence[float] | None, step: int) -> ClipResult:
    """Clip a plan's parameters in place, without a history; a function of its own, so that a watched run sees the call."""
    parameters = plan.target.parameters
    return run(plan, OfParameters(parameters), StepInputs(parameters, lrs, number=step))[0]


def clip(grads: Grads, clipping: Clipping | Chain | str, *, params: Any = None, step: int = 0) -> Any:
    """Return clipped copies of gradients; the originals are not changed.

    Gradients that require grad (``create_graph=True``) are clipped differentiably, since the factor is a function of them, and
    of the weights where the limit is; where a block is 0, its norm has the derivative 0. Under ``torch.func.vmap`` every sample
    is clipped by itself. Inside such transforms nobody knows whether a gradient is finite, so ``nonfinite="skip"`` sets all
    gradients of a sample with a NaN or Inf to 0 instead of None, and ``"raise"`` is refused. For
    ``torch.compile(fullgraph=True)`` make the recipe outside the compiled function, with ``nonfinite="propagate"``.

    Args:
        grads: a tensor, a list, tuple or dict of tensors (None where there is no gradient), or a model, whose gradients
            are meant: they come back as a dict by name.
        clipping: a recipe, or its spelling.
        params: the weights, in the same form, for thresholds relative to them (a model brings its own).
        step: the step a scheduled threshold is at.

    Returns:
        Copies in the form that was passed; None for every gradient if the step is skipped.

    Raises:
        TypeError: something else than tensors.
        TargetError: a method that does not fit, params that do not fit the gradients, or sparse gradients that require grad.
        ValueError: a method that keeps a history: use ``Clipper`` or ``attach``.
        NonFiniteGradientError: a NaN or Inf, under ``nonfinite="raise"``.

    >>> clip([torch.tensor([3.0, 4.0])], "global_norm:1")
    [tensor([0.6000, 0.8000])]
    >>> per_sample = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    >>> torch.func.vmap(lambda g: clip(g, "global_norm:1.0"))(per_sample)
    tensor([[0.6000, 0.8000],
            [0.3000, 0.4000]])
    >>> clip({"w": torch.tensor([-2.0, 0.1])}, "value:0.5")
    {'w': tensor([-0.5000,  0.1000])}
    """
    clipping = as_clipping(clipping)
    if any(stage.threshold.stateful for stage in clipping.stages):
        _refuse_history(clipping)
    if isinstance(grads, nn.Module):
        target = resolve(grads, method=str(clipping))
        given: dict[str, Tensor | None] = {n: p.grad for n, p in zip(target.names, target.parameters, strict=True)}
        plan = Plan(clipping, target)
        return dict(zip(given, _clipped(plan, list(given.values()), target.parameters, step), strict=True))
    names, tensors = _flat(grads, "gradients")
    weights = None if params is None else _flat(params, "params")[1]
    if weights is not None and [None if w is None else w.shape for w in weights] != [w.shape for w in weights if w is not None]:
        raise TypeError("params must be tensors, one for each gradient")
    if weights is not None and len(weights) != len(tensors):
        raise TargetError(f"{len(tensors)} gradients, but {len(weights)} params: pass one for each gradient, in the same order")
    shapes = [t.shape if t is not None else w.shape if w is not None else torch.Size((0,))
              for t, w in zip(tensors, weights or tensors, strict=True)]  # fmt: skip
    entries = tuple(Entry(name, tuple(shape)) for name, shape in zip(names, shapes, strict=True))
    like = [w if t is None else t for t, w in zip(tensors, weights or tensors, strict=True)]
    target = Target((), entries, shards_of([torch.empty(0) if t is None else t for t in like], str(clipping), names))
    target.check_shapes(tensors, weights)
    out = _clipped(Plan(clipping, target), tensors, weights, step)
    if isinstance(grads, Tensor):
        return out[0]
    if isinstance(grads, Mapping):
        return dict(zip(grads, out, strict=True))
    return tuple(out) if isinstance(grads, tuple) else out


def tensor_norms(target: Clippable, norm: Norm | float | str = 2, *, group: Any = None) -> dict[str, float]:
    """Return the norm of every parameter's gradient by name: which layer explodes, which one vanishes.

    Parameters without a gradient are left out. The values are read from the device together, not one by one. Every rank that
    has a part of any gradient calls it; ``group`` as in :func:`clip_`.

    >>> model = nn.Linear(2, 1)
    >>> model(torch.tensor([[3.0, 4.0]])).sum().backward()
    >>> tensor_norms(model)
    {'weight': 5.0, 'bias': 1.0}
    """
    measuring = tensor_norm(float("inf"), norm=as_norm(norm), nonfinite="propagate")
    plan = Plan(measuring, resolve(target, group=group, method=str(measuring)))
    parameters = plan.target.parameters
    grads = [p.grad for p in parameters]
    result, _ = run(plan, GradientList(grads), StepInputs())
    values = result.tensor_norms.tolist()
    each = zip(plan.target.names, values, grads, strict=True)
    return {name: value for name, value, grad in each if grad is not None or value != 0}  # what other ranks have


def _refuse_history(clipping: Clipping | Chain) -> None:
    raise ValueError(f"{clipping} learns from past steps: use gradclip.Clipper(model, ...) or gradclip.attach(optimizer, ...)")


def _learning_rates(plan: Plan, target: Clippable) -> list[float]:
    if not isinstance(target, torch.optim.Optimizer):
        raise TargetError(f"{plan.clipping} needs the learning rate: use gradclip.attach(optimizer, ...)")
    return effective_rates(target, plan.target.parameters)


def _clipped(plan: Plan, grads: Sequence[Tensor | None], weights: Sequence[Any] | None, step: int) -> list[Tensor | None]:
    inputs = StepInputs(weights, number=step)
    if in_graph(grads):
        copies, bad = differentiable.clipped(plan, grads, inputs)
    else:
        copies = [None if g is None else g.detach().clone() for g in grads]
        result, _ = run(plan, GradientList(copies), inputs)
        bad = result.nonfinite_names if result.skipped else ()
    if bad:
        warnings.warn(SKIPPED_STEP.warning(bad), RuntimeWarning, stacklevel=3)
    return copies


def _flat(tree: Any, what: str) -> tuple[list[str], list[Tensor | None]]:
    if isinstance(tree, Tensor):
        return ["0"], [tree]
    if isinstance(tree, Mapping):
        names, values = [str(key) for key in tree], list(tree.values())
    elif isinstance(tree, (list, tuple)):
        names, values = [str(i) for i in range(len(tree))], list(tree)
    elif hasattr(tree, "__next__"):
        raise TargetError(f"{what} must be a list, not an iterator, which can be read only once: pass list(...)")
    else:
        raise TypeError(f"{what} must be a tensor, a list, tuple or dict of tensors, or a model, not {type(tree).__name__}")
    for name, item in zip(names, values, strict=True):
        if item is not None and not isinstance(item, Tensor):
            raise TypeError(f"{what} must be tensors, but {name!r} is {type(item).__name__}")
    return names, values
