"""PyTorch's own clipping functions, with their signatures and their contract, only faster and more exact.

They differ from ``torch.nn.utils`` in the numbers alone: norms are carried in float64 and returned in at least float32, finite
gradients of any size are clipped rather than zeroed, and gradients that need no scaling are not rewritten.
"""

from __future__ import annotations

import types
import warnings
from array import array
from collections.abc import Iterable
from typing import TypeAlias

import torch
from torch import Tensor

from gradclip.backends import kernel, torch_ops, torch_triton
from gradclip.backends.kernel import Table
from gradclip.backends.torch_eager import scale_tensors
from gradclip.backends.torch_payload import Payload
from gradclip.backends.torch_triton import DeviceTable
from gradclip.torch.total import Described, described, for_kernels, refuse_nonfinite, returned_dtype, total_of, total_of_table

__all__ = ["clip_grad_norm", "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm"]

TensorOrTensors: TypeAlias = Tensor | Iterable[Tensor]

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
    total, _ = total_of(found, float(norm_type), error_if_nonfinite, foreach)
    return _tensor(total, returned_dtype(found))


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
    _scale([p.grad for p in listed if p.grad is not None], float(max_norm), total_norm)


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
    grads, p = _gradients(parameters), float(norm_type)
    with torch.no_grad():  # as a decorator it takes twice as long
        table = described(grads, p)
        if isinstance(table, Table) and not table.left_out:
            return _clip_on_host(table, p, float(max_norm), error_if_nonfinite)
        if isinstance(table, DeviceTable) and not table.left_out:
            return _clip_on_device(table, p, float(max_norm), error_if_nonfinite)
        total, dtype = total_of(grads, p, error_if_nonfinite, foreach, table)
        _scale(grads, float(max_norm), total, table)
        return _tensor(total, dtype)


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
    present = [copy for copy in copies if copy is not None]
    total, _ = total_of(present, float(norm_type), error_if_nonfinite, foreach)
    _scale(present, float(max_norm), total)
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
    grads = [p.grad for p in listed if p.grad is not None]
    if for_kernels(grads) and bound >= 0:
        torch_ops.clamp_(grads, -bound, bound)
        return
    on_device = torch_triton.describe(grads) if bound >= 0 else None
    if on_device is not None:
        on_device.clamp(-bound, bound)
        grads = [grads[i] for i in on_device.left_out]
    table = kernel.describe(grads) if bound >= 0 else None
    if table is not None:
        table.clamp(-bound, bound)
        grads = [grads[i] for i in table.left_out]
    for grad in grads:
        if not _within(grad, bound):
            grad.clamp_(-bound, bound)


def _gradients(parameters: TensorOrTensors) -> list[Tensor]:
    if isinstance(parameters, Tensor):
        return [] if parameters.grad is None else [parameters.grad]
    listed = list(parameters)
    if not listed and isinstance(parameters, types.GeneratorType):
        warnings.warn("`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=3)
    grads = [p.grad for p in listed]
    return [grad for grad in grads if grad is not None]


def _clip_on_device(table: DeviceTable, p: float, max_norm: float, error_if_nonfinite: bool) -> Tensor:
    """Measure, decide and scale on the device; the host is asked only for the sake of an error."""
    total, factor, returned = torch_triton.conclude(table.norms(p), p, max_norm, torch.float32)
    if error_if_nonfinite:
        refuse_nonfinite(total, p)
    table.scale(factor.reshape(1))
    return returned


def _clip_on_host(table: Table, p: float, max_norm: float, error_if_nonfinite: bool) -> Tensor:
    """The same for plain gradients on the CPU, which are looked at once."""
    total, dtype = total_of_table(table, p)
    if error_if_nonfinite:
        refuse_nonfinite(total, p)
    factor = _factor(max_norm, total)
    if factor != 1:
        table.scale(array("d", (factor,)) * table.cells)
    return torch.tensor(total, dtype=dtype)


def _scale(grads: list[Tensor], max_norm: float, total: Tensor | float, table: Described = None) -> None:
    if not grads:
        return
    if isinstance(total, float):
        factor = _factor(max_norm, total)
    else:
        coefficient = torch.clamp(max_norm / (total + 1e-6), max=1.0)
        if for_kernels(grads):
            torch_ops.scale_(grads, coefficient.double().expand(len(grads)))
            return
        if type(total) is Tensor and torch_triton.usable(total):
            scale_tensors([Payload(g, g.shape) for g in grads], coefficient.expand(len(grads)))
            return
        if type(total) is not Tensor or total.device.type != "cpu" or torch.compiler.is_compiling():
            for grad in grads:
                grad.mul_(coefficient.to(grad.device))
            return
        factor = float(coefficient)
    if factor != 1:
        if isinstance(table, Table):
            table.scale(array("d", (factor,)) * table.cells)
            grads = [grads[i] for i in table.left_out]
        scale_tensors([Payload(g, g.shape) for g in grads], [factor] * len(grads))


def _factor(max_norm: float, total: float) -> float:
    ratio = max_norm / (total + 1e-6)
    return 1.0 if ratio > 1 else ratio  # NaN stays NaN


def _tensor(total: Tensor | float, dtype: torch.dtype) -> Tensor:
    return total.to(dtype) if isinstance(total, Tensor) else torch.tensor(total, dtype=dtype)


def _within(grad: Tensor, bound: float) -> bool:
    """Whether a large tensor on the CPU needs no clamping; anything else is clamped without a look."""
    if grad.numel() <= _SMALL or grad.device.type != "cpu" or type(grad) is not Tensor or grad.is_complex():
        return False
    low, high = torch.aminmax(grad)
    return float(low) >= -bound and float(high) <= bound
