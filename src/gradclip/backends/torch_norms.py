"""Measure PyTorch tensors: p-norms carried in float64, safe from overflow, whatever the tensors' dtype.

Plain tensors are measured by the compiled kernel on the CPU, and by the Triton kernels on a GPU, where there are such.
Everything else on the CPU sums squares in float32 over rows of 256 elements and carries the row norms in float64: one read of
the bytes, relative error near 1e-8. Where float32 squares overflow or vanish (elements beyond 1e19 or below 1e-19), the tensor
is measured again in float64, and float64 itself is scaled by its largest element first.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

from gradclip.backends import kernel, torch_triton
from gradclip.backends.kernel import Table
from gradclip.backends.torch_triton import DeviceTable

__all__ = ["carrier", "joined", "norm_of", "norms_of", "unit_norms", "vector"]

_ROW = 256
"""Elements summed in the tensor's own precision before float64 takes over."""
_BUFFER = 1 << 20
"""Elements of a half-precision tensor widened at a time: 4 MB, which stays in cache."""
_SMALL = 1 << 14
"""Up to here one dot product is as exact as rows are, and quicker."""
_TINY_SQUARES = 1e-26
"""Below this sum, squares of float32 elements may have vanished."""


def carrier(device: torch.device) -> torch.dtype:
    """Return the dtype that norms are kept in: float64, except where the device has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def norms_of(
    tensors: Sequence[Tensor | None], p: float, device: torch.device, table: Table | DeviceTable | None = None
) -> Tensor:
    """Return the p-norm of each tensor as one vector on ``device``; a NaN or Inf element makes its norm non-finite.

    None measures 0. ``table`` is a kernel's view of the tensors, where somebody has it already.
    """
    if table is None:
        table = torch_triton.describe(tensors, p=p)
    if isinstance(table, DeviceTable):
        if kernel.takes(p):
            return _norms_on_device(tensors, p, table).to(device)
        table = None
    if kernel.takes(p) and device.type == "cpu":
        table = table or kernel.describe(tensors)
        if table is not None:
            norms = table.norms(p)
            for i in table.left_out:
                norms[i] = _host_norm(tensors[i], p)
            return vector(norms)
    kept = carrier(device)
    if all(t is None or t.device.type == "cpu" for t in tensors):
        return torch.tensor([_host_norm(t, p) for t in tensors], dtype=kept, device=device)
    zero = torch.zeros((), dtype=kept, device=device)
    each = [zero if t is None else norm_of(t, p).to(device=device, dtype=kept) for t in tensors]
    return torch.stack(each) if each else torch.zeros(0, dtype=kept, device=device)


def _norms_on_device(tensors: Sequence[Tensor | None], p: float, table: DeviceTable) -> Tensor:
    norms = table.norms(p)
    for i in table.left_out:
        tensor = tensors[i]
        if tensor is not None:
            norms[i] = norm_of(tensor, p)
    return norms


def vector(numbers: array[float]) -> Tensor:
    """Return numbers of the host as a float64 tensor that shares their memory: the cheapest way to make one.

    >>> vector(array("d", [1.0, 2.0]))
    tensor([1., 2.], dtype=torch.float64)
    """
    return torch.frombuffer(numbers, dtype=torch.float64) if numbers else torch.zeros(0, dtype=torch.float64)


def joined(norms: Sequence[float], p: float) -> float:
    """Return the p-norm of several norms that the host knows; NaN where any is NaN, and no overflow on the way.

    >>> joined([3.0, 4.0], 2), joined([3.0, 4.0], math.inf), joined([3e200, 0.0], 2)
    (5.0, 4.0, 3e+200)
    """
    total = sum(norms)
    if math.isnan(total) or p == 1 or not norms:
        return total
    if p == 2:
        return math.hypot(*norms)
    largest = max(norms)
    if math.isinf(p) or largest == 0 or math.isinf(largest):
        return largest
    return largest * math.fsum((n / largest) ** p for n in norms) ** (1 / p)


def norm_of(x: Tensor, p: float) -> Tensor:
    """Return the p-norm of one tensor on its own device, without asking the host."""
    kept = carrier(x.device)
    if x.numel() == 0:
        return torch.zeros((), dtype=kept, device=x.device)
    if math.isinf(p):
        return x.abs().amax().to(kept)
    if x.dtype in (torch.float64, torch.complex128) or p > 4 or kept == torch.float32:
        return _scaled_norm(x, p, kept)
    return torch.linalg.vector_norm(x, p, dtype=_wide(x, kept)).to(kept)


def unit_norms(x: Tensor, p: float, view: tuple[int, int, int, int]) -> Tensor:
    """Return the p-norm of every output unit of one tensor, as a vector; ``view`` is ``Entry.unit_view``."""
    kept = carrier(x.device)
    if x.numel() == 0:
        return torch.zeros(view[0] * view[2], dtype=kept, device=x.device)
    units = x.reshape(view)
    if math.isinf(p):
        return units.abs().amax(dim=(1, 3)).flatten().to(kept)
    if view[1] == 1 and view[3] <= _SMALL and x.dtype == torch.float32 and p == 2:
        norms = torch.linalg.vector_norm(units, p, dim=(1, 3)).flatten().to(kept)
        if x.device.type != "cpu" or bool(((norms > _TINY_SQUARES**0.5) & norms.isfinite()).all()):
            return norms
    largest = units.abs().amax(dim=(1, 3), keepdim=True).to(kept)
    scale = torch.where((largest > 0) & largest.isfinite(), largest, torch.ones_like(largest))
    wide = units.to(_wide(x, kept)) / scale
    return (torch.linalg.vector_norm(wide, p, dim=(1, 3), keepdim=True) * scale).flatten().to(kept)


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
    largest = x.abs().amax().to(kept)
    scale = torch.where((largest > 0) & largest.isfinite(), largest, torch.ones_like(largest))
    return (torch.linalg.vector_norm(x.to(_wide(x, kept)) / scale, p) * scale).to(kept)


def _wide(x: Tensor, kept: torch.dtype) -> torch.dtype:
    if x.is_complex():
        return torch.complex128 if kept == torch.float64 else torch.complex64
    return kept


def _largest(a: float, b: float) -> float:
    """The larger number, or NaN where either is (Python's max would lose it)."""
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)
