"""What is done to single elements, with stock operations, whatever the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["clamp", "clamp_each", "dense", "extremes", "multiply", "outside", "scale_elements", "sizes"]

_WIDE = (torch.float64, torch.complex128)


class _Stored(Protocol):
    """The tensors of a backend."""

    tensors: Sequence[Tensor | None]
    sparse: Mapping[int, Any]


def dense(stored: _Stored, i: int, shape: Sequence[int]) -> Tensor:
    """Return tensor i in its own shape, zeros where nothing is stored, and for a tensor that is not there."""
    values = stored.tensors[i]
    if values is None:
        return torch.zeros(tuple(shape))
    if i not in stored.sparse:
        return values
    return torch.sparse_coo_tensor(
        stored.sparse[i].indices, values, tuple(shape), is_coalesced=True, check_invariants=False
    ).to_dense()


def scale_elements(stored: _Stored, factors: Sequence[Tensor | None]) -> None:
    """Multiply each element by its own factor, in place."""
    for i, (values, factor) in enumerate(zip(stored.tensors, factors, strict=True)):
        if values is None or factor is None:
            continue
        if i in stored.sparse:
            indices, shape = stored.sparse[i]
            own = factor.view(shape).to(values.device)[tuple(indices)]
        else:
            own = factor.view(values.shape).to(values.device)
        multiply(values, own, own)


def sizes(values: Tensor) -> Tensor:
    """Return the absolute value of every element; of complex ones in float64, as it may be larger than either part."""
    return values.to(torch.complex128).abs() if values.is_complex() else values.abs()


def multiply(values: Tensor, factor: Tensor, each: Tensor) -> None:
    """Multiply by a broadcast tensor of float64 factors, of any size, without rounding them first to what cannot hold them.

    ``each`` has every factor at least once.
    """
    if values.is_neg():  # then its memory, as PyTorch would give half-precision numbers the other sign
        values = torch._neg_view(values)
    if values.dtype in _WIDE:
        values.mul_(factor)
    elif values.device.type != "mps" and not _fits(each):
        torch.mul(values, factor, out=values)
    elif values.dtype in (torch.float16, torch.bfloat16):
        values.copy_(values.float() * factor.float())
    else:
        values.mul_(factor.float())


def _fits(factor: Tensor) -> bool:
    """Whether factors, which the host may look at, are normal numbers of float32."""
    if factor.device.type != "cpu" or not factor.numel():
        return False
    least, most = torch.aminmax(factor)
    return bool((least > 1e-37) & (most < 1e37))


def clamp(values: Tensor, low: Any, high: Any) -> None:
    """Clamp every element, in place; a complex element keeps its angle. A bound beyond the dtype's range is its end."""
    if values.is_complex():
        _clamp_sizes(values, high)
    elif isinstance(high, Tensor):
        values.clamp_(low, high)
    else:
        values.clamp_(*(_in_range(bound, torch.finfo(values.dtype).max) for bound in (low, high)))


def _in_range(bound: float, most: float) -> float:
    return bound if math.isinf(bound) else max(-most, min(bound, most))


def _clamp_sizes(values: Tensor, high: Any) -> None:
    """Bring complex elements that are larger than ``high`` down to it, or to the next smaller number that can be written."""
    size = sizes(values)
    over = size > high
    z = torch.view_as_real(values.resolve_conj()[over].to(torch.complex128))
    scale = torch.where(size[over].isinf(), 0.25, 1.0).to(z)[..., None]  # the size of two numbers near the top is beyond it
    z = z * scale / torch.view_as_complex(z * scale).abs()[..., None] * high
    found = z.to(torch.float32 if values.dtype == torch.complex64 else z.dtype)
    while (above := sizes(torch.view_as_complex(found)) > high).any():
        found = torch.where(above[..., None], torch.nextafter(found, torch.zeros_like(found)), found)
    values[over] = torch.view_as_complex(found)


def clamp_each(tensors: Sequence[Tensor | None], limits: Tensor | Sequence[float]) -> None:
    """Clamp the elements of each tensor to its own limit, in place; inf leaves a tensor of which the host knows it alone."""
    if isinstance(limits, Tensor):
        for values, limit in zip(tensors, limits.unbind(), strict=True):
            if values is not None:
                own = limit.to(values.device)
                clamp(values, -own, own)
        return
    for values, bound in zip(tensors, limits, strict=True):
        if values is not None and bound < math.inf:
            clamp(values, -bound, bound)


def extremes(tensors: Sequence[Tensor | None]) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Return how far the (real) elements of each tensor go above 0, and below, as tensors of one element."""
    above: list[Tensor | None] = []
    below: list[Tensor | None] = []
    for values in tensors:
        if values is None:
            least = most = None
        else:
            least, most = torch.aminmax(values) if values.numel() else (values.new_zeros(()), values.new_zeros(()))
        above.append(None if most is None else most.clamp(min=0).reshape(1))
        below.append(None if least is None else (-least).clamp(min=0).reshape(1))
    return above, below


def outside(tensors: Sequence[Tensor], low: float, high: float, device: torch.device) -> Tensor:
    """Return whether any element lies outside [low, high], as a 0-dim tensor on ``device``."""
    found = torch.zeros((), dtype=torch.bool, device=device)
    for values in tensors:
        if values.numel() == 0:
            continue
        if values.is_complex():
            found |= (sizes(values) > high).any().to(device)
        else:
            least, most = torch.aminmax(values)
            found |= ((least < low) | (most > high)).to(device)
    return found
