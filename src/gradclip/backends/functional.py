"""The functional backend: every verb is differentiable and makes new tensors, for gradients that are part of a graph.

It goes by stock operations that have derivatives of any order and a rule for ``vmap``, and asks the host for nothing, so that
it works inside ``torch.func`` transforms too. ``tensors`` are replaced, never changed. The derivative of a norm is 0 where
the norm is 0, its subgradient of least size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gradclip.backends.backend import Backend, Factors, Units
from gradclip.backends.stock_norms import norm_dtype, wide_dtype

__all__ = ["Functional", "in_graph", "transforming"]

_DOUBLES = (torch.float64, torch.complex128)
_HALVES = (torch.float16, torch.bfloat16)
_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def transforming() -> bool:
    """Whether a ``torch.func`` transform (``vmap``, ``grad``, ``jacrev``, ...) is active, so that values are not known."""
    return torch._C._are_functorch_transforms_active()


def in_graph(tensors: Sequence[Tensor | None]) -> bool:
    """Whether somebody may differentiate through these tensors: what is made of them has to be differentiable."""
    if transforming() or (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)):
        return True
    return forward_ad._current_level >= 0 and any(
        t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors
    )


class Functional(Backend):
    """Strided tensors that are part of a graph, or stand for a whole batch."""

    def __init__(self, tensors: Sequence[Tensor | None], units: Units | None = None) -> None:
        device = next((t.device for t in tensors if t is not None), torch.device("cpu"))
        self._own = list(tensors)
        super().__init__(self._own, device, units)

    def like(self, tensors: Sequence[Tensor | None]) -> Backend:
        """See :class:`Backend`."""
        return Functional(tensors, self.units)

    def norms(self, p: float) -> Tensor:
        """See :class:`Backend`."""
        found = [self._zeros(0)]
        for i, tensor in enumerate(self.tensors):
            if tensor is None:
                found.append(self._zeros(1 if self.units is None else self.units.counts[i]))
            else:
                view = (1, 1, 1, tensor.numel()) if self.units is None else self.units.views[i]
                found.append(_norms(tensor, p, view).to(self.device))
        return torch.cat(found)

    def combined(self, norms: Tensor, p: float, index: Tensor | None, count: int) -> Tensor:
        """See :class:`Backend`."""
        if index is None:
            return _norms(norms, p, (1, 1, 1, norms.numel()))
        largest = self._zeros(count).scatter_reduce(0, index, norms, "amax")
        if math.isinf(p):
            return largest
        largest = largest.detach()
        zero = largest == 0
        scale = torch.where(zero | ~largest.isfinite(), 1.0, largest)
        sums = self._zeros(count).index_add(0, index, (norms / scale[index]) ** p)
        return torch.where(zero, 0.0, torch.where(zero, 1.0, sums) ** (1 / p) * scale)

    def total(self, norms: Tensor, p: float) -> Tensor:
        """See :class:`Backend`."""
        return self.combined(norms, p, None, 1).reshape(())

    def scale(self, factors: Factors, changed: Sequence[bool] | None = None) -> None:
        """See :class:`Backend`."""
        counts = [1] * len(self.tensors) if self.units is None else list(self.units.counts)
        own = torch.as_tensor(factors, dtype=norm_dtype(self.device)).expand(sum(counts))
        for i, part in enumerate(own.split(counts)):
            tensor = self.tensors[i]
            if tensor is None or part.numel() == 0:
                continue
            if self.units is not None:
                groups, before, units, after = self.units.views[i]
                part = part.view(groups, 1, units, 1).expand(groups, before, units, after).reshape(tensor.shape)  # noqa: PLW2901
            else:
                part = part.reshape(())  # noqa: PLW2901
            self._own[i] = _multiplied(tensor, part.to(tensor.device))

    def clamp(self, low: float, high: float, which: Sequence[bool] | None = None) -> None:
        """See :class:`Backend`."""
        for i, tensor in enumerate(self.tensors):
            if tensor is not None and (which is None or which[i]):
                self._own[i] = _clamped(tensor, low, high)

    def clamp_each(self, limits: Tensor | Sequence[float]) -> None:
        """See :class:`Backend`."""
        each = torch.as_tensor(limits, dtype=norm_dtype(self.device))
        for i, (tensor, limit) in enumerate(zip(self.tensors, each.unbind(), strict=True)):
            if tensor is not None:
                own = limit.to(tensor.device)
                self._own[i] = _clamped(tensor, -own, own)

    def outside(self, low: float, high: float, which: Sequence[bool] | None = None) -> Tensor:
        """See :class:`Backend`."""
        chosen = [t for i, t in enumerate(self.tensors) if t is not None and (which is None or which[i])]
        found = [((t.abs() > high) if t.is_complex() else (t < low) | (t > high)).any().to(self.device) for t in chosen]
        return torch.stack(found).any() if found else torch.zeros((), dtype=torch.bool, device=self.device)

    def sizes_of_elements(self, which: Sequence[bool], shapes: Sequence[Sequence[int]]) -> Tensor:
        """See :class:`Backend`."""
        found = [self._zeros(0)]
        for tensor, chosen, shape in zip(self.tensors, which, shapes, strict=True):
            if chosen:
                sizes = self._zeros(math.prod(shape)) if tensor is None else _norms(tensor, math.inf, (1, 1, tensor.numel(), 1))
                found.append(sizes.to(self.device))
        return torch.cat(found)

    def scale_elements(self, factors: Sequence[Tensor | None]) -> None:
        """See :class:`Backend`."""
        for i, (tensor, factor) in enumerate(zip(self.tensors, factors, strict=True)):
            if tensor is not None and factor is not None:
                self._own[i] = _multiplied(tensor, factor.reshape(tensor.shape).to(tensor.device))

    def _zeros(self, count: int) -> Tensor:
        return torch.zeros(count, dtype=norm_dtype(self.device), device=self.device)


def _norms(x: Tensor, p: float, view: tuple[int, int, int, int]) -> Tensor:
    """Return the p-norm of every unit, as a vector; ``view`` is ``Entry.unit_view``.

    Where a unit is 0 it is measured as if it were 1, and the answer is not used: so no derivative divides by 0. Doubles are
    divided by their largest element first, which no power can overflow then; a norm does not depend on it.
    """
    kept = norm_dtype(x.device)
    if x.numel() == 0:
        return torch.zeros(view[0] * view[2], dtype=kept, device=x.device)
    units = x.reshape(view)
    largest = units.detach().abs().amax(dim=(1, 3), keepdim=True)
    zero = largest == 0
    units = torch.where(zero, 1.0, units)
    if math.isinf(p):
        found = units.abs().amax(dim=(1, 3), keepdim=True).to(kept)
    elif x.dtype in _DOUBLES or p > 4 or kept == torch.float32:
        scale = torch.where(zero | ~largest.isfinite(), 1.0, largest).to(kept)
        found = torch.linalg.vector_norm(units.to(wide_dtype(x, kept)) / scale, p, dim=(1, 3), keepdim=True) * scale
    else:
        found = torch.linalg.vector_norm(units, p, dim=(1, 3), keepdim=True, dtype=wide_dtype(x, kept))
    return torch.where(zero, 0.0, found).flatten()


def _multiplied(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply by float64 factors, without rounding them to half precision or beyond the normal numbers of float32."""
    if x.dtype in _HALVES:
        return (x.float() * factor.float()).to(x.dtype)
    real = _REAL.get(x.dtype, x.dtype)
    if real == torch.float64:
        return x * factor.to(real)
    size = factor.detach().abs()
    step = torch.where(size < 1e-37, 2.0**-60, torch.where(size > 1e37, 2.0**60, 1.0)).to(factor.dtype)
    return x * (factor / step).to(real) * step.to(real)


def _clamped(x: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Clamp every element; a complex element keeps its angle."""
    if not x.is_complex():
        low, high = (torch.as_tensor(end, dtype=torch.float64).to(x.device, x.dtype) for end in (low, high))
        return torch.clamp(x, low, high)
    sizes = _norms(x, math.inf, (1, 1, x.numel(), 1)).reshape(x.shape)
    over = sizes > high
    return _multiplied(x, torch.where(over, high / torch.where(over, sizes, 1.0), 1.0))
