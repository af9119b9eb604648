"""PyTorch's own clipping functions, with their signatures and their contract, only faster and more exact.

They differ from ``torch.nn.utils`` in the numbers alone: norms are carried in float64 and returned in at least float32, finite
gradients of any size are clipped rather than zeroed, and gradients that need no scaling are not rewritten.
"""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from gradclip.backends import (
    Backend,
    Shards,
    choose,
    choose_sharded,
    combined_on_host,
    local_of,
    prepared,
    shards_seen,
    summed,
    take_all,
)

__all__ = ["clip_grad_norm", "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm"]

TensorOrTensors: TypeAlias = Tensor | Iterable[Tensor]

_PLAIN = frozenset((Tensor, nn.Parameter))
_SMALL = 4096
"""Up to this many elements, clamping is quicker than looking whether it is needed."""


@torch.no_grad()
def get_total_norm(
    tensors: TensorOrTensors, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> Tensor:
    """Return the norm of all tensors together, as ``torch.nn.utils.get_total_norm`` does, to 1e-6 whatever the dtype.

    Args:
        tensors: gradients, not parameters.
        norm_type: any p; ``inf`` for the largest element.
        error_if_nonfinite: raise ``RuntimeError`` when the norm is NaN or Inf.
        foreach: accepted for compatibility.

    Returns:
        A 0-dim tensor on the first tensor's device, float32 (float64 if any tensor is).

    >>> get_total_norm([torch.tensor([3.0]), torch.tensor([4.0])])
    tensor(5.)
    """
    found = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    return _clip(found, found, None, float(norm_type), error_if_nonfinite, foreach, _keep)


@torch.no_grad()
def clip_grads_with_norm_(
    parameters: TensorOrTensors, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scale gradients in place by ``min(1, max_norm / (total_norm + 1e-6))``, as ``torch.nn.utils`` does.

    Args:
        parameters: the parameters whose ``.grad`` is scaled.
        max_norm: the largest norm.
        total_norm: from :func:`get_total_norm`.
        foreach: accepted for compatibility.

    >>> p = torch.nn.Parameter(torch.zeros(1))
    >>> p.grad = torch.tensor([10.0])
    >>> clip_grads_with_norm_(p, 1.0, torch.tensor(10.0))
    >>> p.grad
    tensor([1.0000])
    """
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    grads = [p.grad for p in listed if p.grad is not None]
    if not grads:
        return
    coefficient = torch.clamp(max_norm / (total_norm + 1e-6), max=1.0)
    if type(total_norm) is Tensor:
        grads = [g for g in map(local_of, grads) if g is not None]  # to multiply, no rank has to hear of another
    backend = _backend(grads, None, _keep)
    if backend is None or type(total_norm) is not Tensor:
        for grad in grads:
            grad.mul_(coefficient.to(grad.device))
    elif backend.on_host and total_norm.device.type == "cpu":
        _scale(backend, float(coefficient))
    else:
        backend.scale(coefficient.to(backend.device, torch.float64).expand(len(grads)))


def clip_grad_norm_(
    parameters: TensorOrTensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Clip the gradients of parameters to one norm in place; put it wherever ``torch.nn.utils.clip_grad_norm_`` stands.

    Args:
        parameters: one parameter or an iterable of them.
        max_norm: the largest norm.
        norm_type: any p; ``inf`` for the largest element.
        error_if_nonfinite: raise ``RuntimeError`` when the norm is NaN or Inf, before anything is changed.
        foreach: accepted for compatibility.

    Returns:
        The norm before clipping, 0-dim, float32 (float64 if any gradient is).

    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3.0, 4.0])
    >>> clip_grad_norm_([p], max_norm=1.0), p.grad
    (tensor(5.), tensor([0.6000, 0.8000]))
    """
    owners = _owners(parameters)

    def put(i: int, grad: Tensor | None) -> None:
        owners[i].grad = grad

    with torch.no_grad():  # as a decorator it takes twice as long
        grads = [p.grad for p in owners]
        return _clip(grads, owners, float(max_norm), float(norm_type), error_if_nonfinite, foreach, put)


@torch.no_grad()
def clip_grad_norm(
    parameters: TensorOrTensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> list[Tensor | None]:
    """Return copies of the gradients clipped to one norm, and leave the gradients as they are.

    Arguments as in :func:`clip_grad_norm_`. (The deprecated ``torch.nn.utils.clip_grad_norm`` changes them in place.)

    Returns:
        One copy for each parameter, None where it has no gradient.

    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3.0, 4.0])
    >>> clip_grad_norm([p], max_norm=1.0), p.grad
    ([tensor([0.6000, 0.8000])], tensor([3., 4.]))
    """
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    copies = [None if p.grad is None else p.grad.detach().clone() for p in listed]
    places = [i for i in range(len(listed)) if copies[i] is not None or _any_sharded(listed)]

    def put(i: int, grad: Tensor | None) -> None:
        copies[places[i]] = grad

    found, like = [copies[i] for i in places], [listed[i] for i in places]
    _clip(found, like, float(max_norm), float(norm_type), error_if_nonfinite, foreach, put)
    return copies


@torch.no_grad()
def clip_grad_value_(parameters: TensorOrTensors, clip_value: float, foreach: bool | None = None) -> None:
    """Clamp the gradients of parameters to ``[-clip_value, clip_value]`` in place, as ``torch.nn.utils`` does.

    Args:
        parameters: one parameter or an iterable of them; none with a gradient is no error.
        clip_value: the largest absolute value of an element.
        foreach: accepted for compatibility.

    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3.0, -0.1])
    >>> clip_grad_value_(p, 0.5)
    >>> p.grad
    tensor([ 0.5000, -0.1000])
    """
    bound = float(clip_value)
    listed = [parameters] if isinstance(parameters, Tensor) else parameters
    owners = [p for p in listed if p.grad is not None]
    if _any_sharded(owners):
        for owner in owners:
            owner.grad = summed(owner.grad)
    parts = [local_of(p.grad) for p in owners]
    backend = take_all([part for part in parts if part is not None]) if bound >= 0 else None
    if backend is not None:
        backend.clamp(-bound, bound)
        return
    for owner, grad in zip(owners, parts, strict=True):
        if grad is None:
            continue
        if grad.layout == torch.sparse_coo:
            owner.grad = grad.coalesce()
            _clamp(owner.grad._values(), bound)
        elif not _within(grad, bound):
            _clamp(grad, bound)


def _owners(parameters: TensorOrTensors) -> list[Tensor]:
    """Return the parameters that have a gradient; where they are sharded, all, since another rank may have one."""
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    if not listed and isinstance(parameters, types.GeneratorType):
        warnings.warn("`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=3)
    return listed if _any_sharded(listed) else [p for p in listed if p.grad is not None]


def _any_sharded(tensors: Sequence[Tensor]) -> bool:
    return not _PLAIN.issuperset(map(type, tensors)) and any(hasattr(t, "device_mesh") for t in tensors)


def _clip(
    found: Sequence[Tensor | None],
    like: Sequence[Tensor],
    max_norm: float | None,
    p: float,
    error_if_nonfinite: bool,
    foreach: bool | None,
    put: Callable[[int, Tensor | None], None],
) -> Tensor:
    """Bring gradients to a norm, or only measure (None), and return the norm before.

    Args:
        found: the gradients; None only where ``like`` is sharded.
        like: what says how they are sharded: their parameters, or they themselves.
        max_norm: the norm.
        p: of the norm.
        error_if_nonfinite: as in PyTorch.
        foreach: as in PyTorch.
        put: ``put(i, grad)`` puts another tensor in place of gradient i.
    """
    shards = shards_seen(like, f"p={p}") if p > 0 and _any_sharded(like) else None
    grads = [g for g in found if g is not None]
    if shards is None and len(grads) < len(found):
        return torch.nn.utils.get_total_norm(found, p)  # type: ignore[arg-type]  # PyTorch's own error for a None
    if shards is None and not grads:
        return torch.tensor(0.0)
    wide = shards.wide if shards is not None else any(g.dtype in (torch.float64, torch.complex128) for g in grads)
    backend = _backend(grads if shards is None else found, shards, put) if p > 0 else None
    if backend is None:
        return _clip_as_torch(grads, max_norm, p, error_if_nonfinite, foreach)
    dtype = torch.float64 if wide else torch.float32
    norms = backend.norms(p)
    if backend.on_host:
        total = _overflowing(combined_on_host(norms.tolist(), p), p, wide)
        if error_if_nonfinite and not math.isfinite(total):
            _refuse(p)
        if max_norm is not None:
            ratio = max_norm / (total + 1e-6)
            _scale(backend, 1.0 if ratio > 1 else ratio)  # NaN stays NaN
        return torch.tensor(total, dtype=dtype)
    total_norm, factor, returned = backend.conclude(norms, p, 1.0 if max_norm is None else max_norm, dtype)
    if wide and p != math.inf:
        returned = torch.where(total_norm.pow(p).isinf(), returned.new_tensor(math.inf), returned)
    if error_if_nonfinite and not bool(total_norm.isfinite()):
        _refuse(p)
    if max_norm is not None:
        backend.scale(factor.reshape(1).expand(len(norms)))
    return returned


def _backend(
    grads: Sequence[Tensor | None], shards: Shards | None, put: Callable[[int, Tensor | None], None]
) -> Backend | None:
    """Choose the backend of this step; None where only PyTorch's own operations know what to do."""
    if shards is not None:
        values, sparse = shards.values(grads, [str(i) for i in range(len(grads))], put)
        return choose_sharded(values, None, shards, sparse)
    found = take_all(grads)
    if found is not None or not all(type(g) in (Tensor, nn.Parameter) for g in grads):
        return found
    if all(g is None or g.layout == torch.strided for g in grads):
        return choose(grads)
    values, sparse = prepared(grads, [str(i) for i in range(len(grads))], put)
    return choose(values, None, sparse)


def _clip_as_torch(
    grads: list[Tensor], max_norm: float | None, p: float, error_if_nonfinite: bool, foreach: bool | None
) -> Tensor:
    """Let PyTorch measure: p <= 0, and special tensors."""
    total = torch.nn.utils.get_total_norm(grads, p, error_if_nonfinite, foreach)
    if max_norm is not None:
        coefficient = torch.clamp(max_norm / (total + 1e-6), max=1.0)
        for grad in grads:
            grad.mul_(coefficient.to(grad.device))
    return total


def _scale(backend: Backend, factor: float) -> None:
    if factor != 1:
        backend.scale(factor)


def _overflowing(total: float, p: float, wide: bool) -> float:
    """Inf where torch's float64 powers overflow, as torch does; float32 norms are carried in float64 and do not."""
    if wide and p != math.inf:
        try:
            total**p
        except OverflowError:
            return math.inf
    return total


def _refuse(p: float) -> None:
    """Raise PyTorch's own error for a norm that is NaN or Inf."""
    raise RuntimeError(
        f"The total norm of order {p} for gradients from `parameters` is non-finite, so it cannot be clipped. To disable "
        "this error and scale the gradients by the non-finite norm anyway, set `error_if_nonfinite=False`"
    )


def _keep(i: int, grad: Tensor | None) -> None:
    """Put nothing in place of a gradient that is only measured."""


def _clamp(values: Tensor, bound: float) -> None:
    """Clamp to a bound, or to the end of the dtype's range where it lies beyond."""
    if math.isfinite(bound) and values.is_floating_point():
        bound = min(bound, torch.finfo(values.dtype).max)
    values.clamp_(-bound, bound)


def _within(grad: Tensor, bound: float) -> bool:
    """Whether a large tensor on the CPU needs no clamping; anything else is clamped without a look."""
    if grad.numel() <= _SMALL or grad.device.type != "cpu" or type(grad) is not Tensor or grad.is_complex():
        return False
    low, high = torch.aminmax(grad)
    return float(low) >= -bound and float(high) <= bound
