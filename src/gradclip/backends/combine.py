"""Combine norms: the norm of a block from the norms of its cells."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["combine", "combined_on_host", "vector"]


def combine(cells: Tensor, p: float, index: Tensor | None, count: int) -> Tensor:
    """Return the norm of every block from the norms of its cells; ``index`` names each cell's block (None: one block).

    Each block is scaled by its own largest cell first, so that no finite norm overflows or vanishes beside another.
    """
    if cells.numel() == 0:
        return torch.zeros(count, dtype=cells.dtype, device=cells.device)
    if index is None:
        largest = cells.amax().reshape(1)
    else:
        largest = torch.zeros(count, dtype=cells.dtype, device=cells.device).scatter_reduce_(0, index, cells, "amax")
    if math.isinf(p):
        return largest
    scale = torch.where((largest > 0) & largest.isfinite(), largest, torch.ones_like(largest))
    if index is None:
        return (torch.linalg.vector_norm(cells / scale, p) * scale).reshape(1)
    sums = torch.zeros_like(largest).index_add_(0, index, (cells / scale[index]) ** p)
    return sums ** (1 / p) * scale


def combined_on_host(norms: Sequence[float], p: float) -> float:
    """Return the p-norm of several norms that the host knows; NaN where any is NaN, and no overflow on the way.

    >>> combined_on_host([3.0, 4.0], 2), combined_on_host([3.0, 4.0], math.inf), combined_on_host([3e200, 0.0], 2)
    (5.0, 4.0, 3e+200)
    """
    total = sum(norms, 0.0)
    if math.isnan(total) or p == 1 or not norms:
        return total
    if p == 2:
        return math.hypot(*norms)
    largest = max(norms)
    if math.isinf(p) or largest == 0 or math.isinf(largest):
        return largest
    try:
        return largest * math.fsum((n / largest) ** p for n in norms) ** (1 / p)
    except OverflowError:  # which floats say only of powers
        return math.inf


def vector(numbers: array[float]) -> Tensor:
    """Return numbers of the host as a float64 tensor that shares their memory: the cheapest way to make one.

    >>> vector(array("d", [1.0, 2.0]))
    tensor([1., 2.], dtype=torch.float64)
    """
    return torch.frombuffer(numbers, dtype=torch.float64) if numbers else torch.zeros(0, dtype=torch.float64)
