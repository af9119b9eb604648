"""Measure tensors with stock operations: p-norms carried in float64, safe from overflow, whatever the tensors' dtype.

On the CPU squares are summed in float32 over rows of 256 elements, and the row norms carried in float64: one read of the bytes,
relative error near 1e-8. Where float32 squares overflow or vanish (elements beyond 1e19 or below 1e-19), the tensor is measured
again in float64, and float64 itself is scaled by its largest element first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradclip.backends.elements import sizes

__all__ = ["norm_dtype", "norm_of", "norms_of", "unit_norms", "wide_dtype"]

_ROW = 256
"""Elements summed in the tensor's own precision before float64 takes over."""
_BUFFER = 1 << 20
"""Elements of a half-precision tensor widened at a time: 4 MB, which stays in cache."""
_SMALL = 1 << 14
"""Up to here one dot product is as exact as rows are, and quicker."""
_TINY_SQUARES = 1e-26
"""Below this sum, squares of float32 elements may have vanished."""


def norm_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype that norms are kept in: float64, except where the device has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def norms_of(tensors: Sequence[Tensor | None], p: float, device: torch.device, on_host: bool) -> Tensor:
    """Return the p-norm of each tensor as one vector on ``device``; None measures 0.

    Args:
        tensors: of any devices.
        p: any p > 0.
        device: where the norms come together.
        on_host: the host may look at numbers on the way.
    """
    kept = norm_dtype(device)
    if on_host and all(t is None or t.device.type == "cpu" for t in tensors):
        return torch.tensor([_host_norm(t, p) for t in tensors], dtype=kept, device=device)
    zero = torch.zeros((), dtype=kept, device=device)
    each = [zero if t is None else norm_of(t, p).to(device=device, dtype=kept) for t in tensors]
    return torch.stack(each) if each else torch.zeros(0, dtype=kept, device=device)


def norm_of(x: Tensor, p: float) -> Tensor:
    """Return the p-norm of one tensor on its own device, without asking the host."""
    kept = norm_dtype(x.device)
    if x.numel() == 0:
        return torch.zeros((), dtype=kept, device=x.device)
    if math.isinf(p):
        return sizes(x).amax().to(kept)
    if x.dtype in (torch.float64, torch.complex128) or p > 4 or kept == torch.float32:
        return _scaled_norm(x, p, kept)
    return torch.linalg.vector_norm(x, p, dtype=wide_dtype(x, kept)).to(kept)


def unit_norms(x: Tensor, p: float, view: tuple[int, int, int, int]) -> Tensor:
    """Return the p-norm of every output unit of one tensor, as a vector; ``view`` is ``Entry.unit_view``."""
    kept = norm_dtype(x.device)
    if x.numel() == 0:
        return torch.zeros(view[0] * view[2], dtype=kept, device=x.device)
    units = x.reshape(view)
    if math.isinf(p):
        return sizes(units).amax(dim=(1, 3)).flatten().to(kept)
    if view[1] == 1 and view[3] <= _SMALL and x.dtype == torch.float32 and p == 2:
        norms = torch.linalg.vector_norm(units, p, dim=(1, 3)).flatten().to(kept)
        if x.device.type != "cpu" or bool(((norms > _TINY_SQUARES**0.5) & norms.isfinite()).all()):
            return norms
    wide = sizes(units).to(kept)
    scale = _scale(wide.amax(dim=(1, 3), keepdim=True))
    return (torch.linalg.vector_norm(wide / scale, p, dim=(1, 3), keepdim=True) * scale).flatten()


def _host_norm(x: Tensor | None, p: float) -> float:
    """Return the p-norm of one tensor as a Python number."""
    if x is None or x.numel() == 0:
        return 0.0
    if x.device.type != "cpu":
        return float(norm_of(x, p))
    if x.is_complex():
        if p != 2:
            return _exact_norm(x, p)
        x = torch.view_as_real(x.resolve_conj())
    if math.isinf(p):
        low, high = torch.aminmax(x)
        return _largest(-float(low), float(high))
    if p != 2:
        return _exact_norm(x, p)
    squares = _squares(x)
    if _TINY_SQUARES < squares < math.inf:
        return math.sqrt(squares)
    return _exact_norm(x, p)


def _squares(x: Tensor) -> float:
    """Return the sum of squares: in float32 within a row, in float64 across rows. May overflow to inf or vanish to 0."""
    flat = x.reshape(-1)
    if x.dtype in (torch.float16, torch.bfloat16):
        if flat.numel() <= _BUFFER:
            return _row_squares(flat.float())
        buffer = torch.empty(_BUFFER, dtype=torch.float32)
        return math.fsum(_row_squares(buffer[: part.numel()].copy_(part)) for part in flat.split(_BUFFER))
    return _row_squares(flat)


def _row_squares(flat: Tensor) -> float:
    if flat.numel() <= _SMALL:
        return float(torch.dot(flat, flat))
    whole = flat.numel() // _ROW * _ROW
    rows = torch.linalg.vector_norm(flat[:whole].view(-1, _ROW), dim=1).double()
    rest = flat[whole:].double()
    return float(torch.dot(rows, rows)) + float(torch.dot(rest, rest))


def _exact_norm(x: Tensor, p: float) -> float:
    return float(_scaled_norm(x, p, torch.float64))


def _scaled_norm(x: Tensor, p: float, kept: torch.dtype) -> Tensor:
    """Divide by the largest element first, so that no power overflows; exact for any finite input."""
    wide = (sizes(x) if x.is_complex() else x).to(kept)
    scale = _scale(wide.abs().amax())
    return torch.linalg.vector_norm(wide / scale, p) * scale


def _scale(largest: Tensor) -> Tensor:
    return torch.where((largest > 0) & largest.isfinite(), largest, torch.ones_like(largest))


def wide_dtype(x: Tensor, kept: torch.dtype) -> torch.dtype:
    """Return the dtype in which a tensor's elements are as wide as norms."""
    if x.is_complex():
        return torch.complex128 if kept == torch.float64 else torch.complex64
    return kept


def _largest(a: float, b: float) -> float:
    """The larger number, or NaN where either is (Python's max would lose it)."""
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)
