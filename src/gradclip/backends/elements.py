"""What is done to single elements, with stock operations, whatever the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["clamp", "clamp_each", "dense", "extremes", "multiply", "outside", "scale_elements"]


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
            multiply(values, factor.view(shape).to(values.device)[tuple(indices)])
        else:
            multiply(values, factor.view(values.shape).to(values.device))


def multiply(values: Tensor, factor: Tensor) -> None:
    """Multiply by a broadcast tensor of float64 factors without rounding them to half precision first."""
    if values.dtype in (torch.float16, torch.bfloat16):
        values.copy_(values.float() * factor.float())
    else:
        real = {torch.complex64: torch.float32, torch.complex128: torch.float64}.get(values.dtype, values.dtype)
        values.mul_(factor.to(real))


def clamp(values: Tensor, low: Any, high: Any) -> None:
    """Clamp every element, in place; a complex element keeps its angle."""
    if values.is_complex():
        size = values.abs()
        multiply(values, torch.where(size > high, high / size, torch.ones_like(size)))
    else:
        values.clamp_(low, high)


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
            found |= (values.abs() > high).any().to(device)
        else:
            least, most = torch.aminmax(values)
            found |= ((least < low) | (most > high)).to(device)
    return found
