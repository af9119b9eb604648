"""The eager PyTorch backend: measure, combine and apply with stock operations, on any device."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradclip.backends import kernel, torch_triton
from gradclip.backends.kernel import Table
from gradclip.backends.torch_norms import carrier, joined, norms_of, unit_norms, vector
from gradclip.backends.torch_payload import DevicePayloads, Payload, Payloads, PlainPayloads, values_of
from gradclip.backends.torch_triton import DeviceTable
from gradclip.errors import TargetError
from gradclip.scopes import Partition

__all__ = ["clamp", "clamp_each", "combine", "elements", "measure", "scale_elements", "scale_tensors", "scale_units"]

_FEW = 1000
"""Up to this many norms on the CPU, Python numbers are combined quicker than tensors."""

_SOME = 1 << 16
"""Up to this many norms on a GPU, one program combines them quicker than PyTorch's operations are started."""


def measure(payloads: Sequence[Payload], p: float, partition: Partition, device: torch.device) -> Tensor:
    """Return the norm of every cell (a tensor, or a unit of one) as a vector on ``device``; no gradient measures 0."""
    if partition.views is None:
        known = payloads.table if isinstance(payloads, (PlainPayloads, DevicePayloads)) else None
        return norms_of(values_of(payloads), p, device, known)
    on_device = torch_triton.describe(values_of(payloads), partition.cells, p) if _runs(payloads, partition) else None
    if on_device is not None and not on_device.left_out:
        return on_device.norms(p).to(device)
    table = table_of_cells(payloads, partition) if kernel.takes(p) else None
    if table is not None:
        return vector(table.norms(p))
    parts = [_unit_cells(x, p, view, device) for x, view in zip(payloads, partition.views, strict=True)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=carrier(device), device=device)


def table_of_cells(payloads: Sequence[Payload], partition: Partition) -> Table | None:
    """Return the kernel's view of all cells, None where it cannot take every one."""
    if partition.views is None:
        return payloads.table if isinstance(payloads, PlainPayloads) else None
    table = kernel.describe(values_of(payloads), partition.cells) if _runs(payloads, partition) else None
    return None if table is None or table.left_out else table


def combine(cells: Tensor, p: float, index: Tensor | None, count: int) -> Tensor:
    """Return the norm of every block from the norms of its cells; ``index`` names each cell's block (None: one block).

    Scaled by the largest cell first, so that no finite norm overflows.
    """
    if cells.numel() == 0:
        return torch.zeros(count, dtype=cells.dtype, device=cells.device)
    if index is None and cells.numel() <= _SOME and cells.dtype == torch.float64 and torch_triton.usable(cells, p):
        return torch_triton.conclude(cells, p, math.inf, cells.dtype)[0].reshape(1)
    if index is None and cells.device.type == "cpu" and cells.numel() <= _FEW and not torch.compiler.is_compiling():
        return vector(array("d", (joined(cells.tolist(), p),)))
    if math.isinf(p):
        if index is None:
            return cells.amax().reshape(1)
        return torch.zeros(count, dtype=cells.dtype, device=cells.device).scatter_reduce_(0, index, cells, "amax")
    largest = cells.amax()
    scale = torch.where((largest > 0) & largest.isfinite(), largest, torch.ones_like(largest))
    if index is None:
        return (torch.linalg.vector_norm(cells / scale, p) * scale).reshape(1)
    sums = torch.zeros(count, dtype=cells.dtype, device=cells.device).index_add_(0, index, (cells / scale) ** p)
    return sums ** (1 / p) * scale


def scale_tensors(payloads: Sequence[Payload], factors: Sequence[float] | Tensor) -> None:
    """Multiply each tensor by its factor, in place.

    Python numbers skip what has factor 1; a tensor of factors is multiplied without asking the host.
    """
    on_device = _on_device(payloads)
    if on_device is not None:
        on_device.scale(factors)
        payloads = [payloads[i] for i in on_device.left_out]
        factors = factors[on_device.left_out] if isinstance(factors, Tensor) else [factors[i] for i in on_device.left_out]
    if isinstance(factors, Tensor):
        for payload, own in zip(payloads, factors.unbind(), strict=True):
            if payload.values is not None:
                payload.values.mul_(own.to(payload.values.device))
        return
    changing = [x if factor != 1 else None for x, factor in zip(values_of(payloads), factors, strict=True)]
    table = kernel.describe(changing)
    if table is not None:
        table.scale(array("d", factors))
    by_factor: dict[tuple[torch.device, torch.dtype, float], list[Tensor]] = {}
    for i in range(len(changing)) if table is None else table.left_out:
        values = changing[i]
        if values is not None:
            values = torch.view_as_real(values.conj()) if values.is_conj() else values
            by_factor.setdefault((values.device, values.dtype, factors[i]), []).append(values)
    for (device, dtype, factor), alike in by_factor.items():
        for part in _steps(factor, dtype):
            # On the CPU a Python number would be rounded to float16 first; a 0-dim tensor is not.
            torch._foreach_mul_(alike, torch.tensor(part, dtype=torch.float64) if device.type == "cpu" else part)


def scale_units(payloads: Sequence[Payload], factors: Sequence[Tensor], partition: Partition) -> None:
    """Multiply each output unit by its factor, in place."""
    assert partition.views is not None
    changing = [x if factor.numel() else None for x, factor in zip(values_of(payloads), factors, strict=True)]
    lengths = [factor.numel() for factor in factors]
    on_device = torch_triton.describe(changing, lengths) if _runs(payloads, partition) else None
    if on_device is not None and not on_device.left_out:
        on_device.scale(torch.cat(list(factors)))
        return
    table = kernel.describe(changing, lengths) if _runs(payloads, partition) else None
    if table is not None and table.pieces and not table.left_out:
        table.scale(torch.cat([torch.zeros(0, dtype=torch.float64), *factors]).numpy())
        return
    for payload, factor, (groups, before, units, after) in zip(payloads, factors, partition.views, strict=True):
        if payload.values is None or factor.numel() == 0:
            continue
        own = factor.to(payload.values.device)
        if payload.rows is not None:
            own = own[payload.rows if len(own) > 1 else payload.rows * 0]
            _multiply(payload.values, own.view((-1,) + (1,) * (payload.values.dim() - 1)))
        else:
            whole = own.view(groups, 1, units, 1).expand(groups, before, units, after)
            _multiply(payload.values, whole.reshape(payload.shape))


def clamp(payloads: Sequence[Payload], low: float, high: float) -> None:
    """Clamp every element to [low, high], in place; a complex element keeps its angle."""
    tensors = values_of(payloads)
    turned = low != -high and any(x is not None and x.is_neg() for x in tensors)  # memory that holds the other sign
    on_device = None if turned else _on_device(payloads)
    if on_device is not None:
        on_device.clamp(low, high)
        tensors = [tensors[i] for i in on_device.left_out]
    table = None if turned else kernel.describe(tensors)
    if table is not None:
        table.clamp(low, high)
    for values in tensors if table is None else [tensors[i] for i in table.left_out]:
        if values is not None:
            _clamp(values, low, high)


def clamp_each(payloads: Sequence[Payload], limits: Tensor) -> None:
    """Clamp the elements of each tensor to its own limit, in place, without asking the host."""
    for payload, limit in zip(payloads, limits.unbind(), strict=True):
        if payload.values is not None:
            own = limit.to(payload.values.device)
            _clamp(payload.values, -own, own)


def elements(payloads: Sequence[Payload], device: torch.device) -> Tensor:
    """Return the absolute value of every element of every tensor as one vector on ``device``."""
    kept = carrier(device)
    sizes = [x.dense().abs().flatten().to(device=device, dtype=kept) for x in payloads]
    return torch.cat(sizes) if sizes else torch.zeros(0, dtype=kept, device=device)


def scale_elements(payloads: Sequence[Payload], factors: Sequence[Tensor]) -> None:
    """Multiply each element by its own factor, in place; one flat vector of factors for each tensor."""
    for payload, factor in zip(payloads, factors, strict=True):
        if payload.values is None:
            continue
        own = factor.view(payload.shape).to(payload.values.device)
        _multiply(payload.values, own[tuple(payload.indices)] if payload.indices is not None else own)


def _clamp(values: Tensor, low: Any, high: Any) -> None:
    if values.is_complex():
        size = values.abs()
        _multiply(values, torch.where(size > high, high / size, torch.ones_like(size)))
    else:
        values.clamp_(low, high)


def _on_device(payloads: Sequence[Payload]) -> DeviceTable | None:
    """How the kernels of a GPU see the gradients, if there is one that they take."""
    return payloads.table if isinstance(payloads, DevicePayloads) else torch_triton.describe(values_of(payloads))


def _runs(payloads: Sequence[Payload], partition: Partition) -> bool:
    """Whether the units of every tensor are runs of its elements, one after another."""
    assert partition.views is not None
    plain = isinstance(payloads, Payloads) or all(x.indices is None for x in payloads)
    return plain and all(view[1] == 1 for view in partition.views)


def _unit_cells(payload: Payload, p: float, view: tuple[int, int, int, int], device: torch.device) -> Tensor:
    units = view[0] * view[2]
    if payload.values is None:
        return torch.zeros(units, dtype=carrier(device), device=device)
    if payload.rows is None:
        return unit_norms(payload.values, p, view).to(device)
    if units > 1 and (view[0] > 1 or view[1] > 1):
        raise TargetError("a sparse gradient has units along its first axis only: use axis=0, or dense gradients")
    stored = payload.values.numel() // max(1, len(payload.rows))
    norms = unit_norms(payload.values, p, (1, 1, len(payload.rows), stored))
    return combine(norms, p, payload.rows if units > 1 else None, units).to(device)


def _steps(factor: float, dtype: torch.dtype) -> tuple[float, ...]:
    """Split a factor too small for the precision that multiplies by it (float32, or float64 for doubles) into two."""
    smallest = 1e-290 if dtype in (torch.float64, torch.complex128) else 1e-37
    if factor >= smallest or factor <= 0 or math.isnan(factor):
        return (factor,)
    first = 2.0 ** (math.frexp(factor)[1] // 2)
    return (first, factor / first)


def _multiply(values: Tensor, factor: Tensor) -> None:
    """Multiply by a broadcast tensor of float64 factors without rounding them to half precision first."""
    if values.dtype in (torch.float16, torch.bfloat16):
        values.copy_(values.float() * factor.float())
    else:
        real = {torch.complex64: torch.float32, torch.complex128: torch.float64}.get(values.dtype, values.dtype)
        values.mul_(factor.to(real))


def exceeds(payloads: Sequence[Payload], low: float, high: float, device: torch.device) -> Tensor:
    """Return whether any element lies outside [low, high], as a 0-dim tensor on ``device``."""
    found = torch.zeros((), dtype=torch.bool, device=device)
    on_device = _on_device(payloads)
    if on_device is not None and not any(x is not None and x.is_neg() for x in values_of(payloads)):
        found |= on_device.outside(low, high).to(device)
        payloads = [payloads[i] for i in on_device.left_out]
    for payload in payloads:
        if payload.values is not None and payload.values.numel():
            if payload.values.is_complex():
                found |= (payload.values.abs() > high).any().to(device)
            else:
                least, most = torch.aminmax(payload.values)
                found |= ((least < low) | (most > high)).to(device)
    return found
