"""The norm of all gradients together, by PyTorch's contract: what the drop-in functions measure."""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import Tensor

from gradclip.backends import kernel, torch_ops, torch_triton
from gradclip.backends.kernel import Table
from gradclip.backends.torch_eager import combine
from gradclip.backends.torch_norms import joined, norms_of
from gradclip.backends.torch_triton import DeviceTable

__all__ = ["Described", "described", "for_kernels", "refuse_nonfinite", "returned_dtype", "total_of", "total_of_table"]

Described: TypeAlias = Table | DeviceTable | None
"""Gradients as the kernels see them that are for the first one's device; None where there are none."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What the kernels of a GPU take."""


def described(grads: list[Tensor], p: float) -> Described:
    """Look at gradients once, for the kernels to work on those they can take."""
    on_device = torch_triton.describe(grads, p=p)
    return on_device if on_device is not None or not kernel.takes(p) else kernel.describe(grads)


def total_of(
    grads: list[Tensor], p: float, error_if_nonfinite: bool, foreach: bool | None, table: Described = None
) -> tuple[Tensor | float, torch.dtype]:
    """Return the norm of all gradients (a Python number where they are on the CPU), and the dtype to return it in.

    ``table`` is what :func:`described` says of them, where somebody has it already.
    """
    if not grads:
        return 0.0, torch.float32
    total, dtype = _measured(grads, p, foreach, described(grads, p) if table is None else table)
    if error_if_nonfinite:
        refuse_nonfinite(total, p)
    return total, dtype


def _measured(grads: list[Tensor], p: float, foreach: bool | None, table: Described) -> tuple[Tensor | float, torch.dtype]:
    if isinstance(table, Table) and not table.left_out:
        return total_of_table(table, p)
    dtype = returned_dtype(grads)
    if kernel.takes(p) and for_kernels(grads):
        return combine(torch_ops.norms(grads, p), p, None, 1).reshape(()), dtype
    special = p <= 0 or torch.compiler.is_compiling()
    if special or not all(type(g) is Tensor and g.layout == torch.strided for g in grads):
        # p <= 0, distributed and other special tensors, or a compiler tracing: torch's own
        return torch.nn.utils.get_total_norm(grads, p, error_if_nonfinite=False, foreach=foreach), dtype
    norms = norms_of(grads, p, grads[0].device, table)
    if norms.device.type == "cpu":
        return _overflowing(joined(norms.tolist(), p), p, dtype), dtype
    total = combine(norms, p, None, 1).reshape(())
    if dtype == norms.dtype == torch.float64 and p != torch.inf:
        total = torch.where(total.pow(p).isinf(), total.new_tensor(torch.inf), total)
    return total, dtype


def total_of_table(table: Table, p: float) -> tuple[float, torch.dtype]:
    """Return the norm of plain gradients on the CPU, and the dtype to return it in."""
    dtype = torch.float64 if table.has_float64 else torch.float32
    return _overflowing(joined(table.norms(p), p), p, dtype), dtype


def _overflowing(total: float, p: float, dtype: torch.dtype) -> float:
    """Inf where torch's float64 powers overflow, as torch does; float32 norms are carried in float64 and do not."""
    if dtype == torch.float64 and p != math.inf:
        try:
            total**p
        except OverflowError:
            return math.inf
    return total


def refuse_nonfinite(total: Tensor | float, p: float) -> None:
    """Raise PyTorch's own error for a norm that is NaN or Inf."""
    if not (math.isfinite(total) if isinstance(total, float) else bool(total.isfinite())):
        raise RuntimeError(
            f"The total norm of order {p} for gradients from `parameters` is non-finite, so it cannot be clipped. To disable "
            "this error and scale the gradients by the non-finite norm anyway, set `error_if_nonfinite=False`"
        )


def returned_dtype(grads: list[Tensor]) -> torch.dtype:
    """Return the dtype torch would return, but never less exact than float32."""
    wide = any(g.dtype in (torch.float64, torch.complex128) for g in grads)
    return torch.float64 if wide else torch.float32


def for_kernels(grads: list[Tensor]) -> bool:
    """Return whether a compiler traces, and the gradients are such as its operations for lists of tensors are for."""
    return bool(grads) and torch.compiler.is_compiling() and all(torch_triton.takes(g) and g.dtype in _DTYPES for g in grads)
