"""The stock backend: PyTorch's own operations, for any tensor on any device, and for a compiler that traces."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradclip.backends.backend import Backend, Factors, SparseEntries, Units
from gradclip.backends.combine import combine
from gradclip.backends.elements import clamp, multiply
from gradclip.backends.stock_norms import norm_dtype, norms_of, unit_norms
from gradclip.errors import TargetError

__all__ = ["Stock"]


class Stock(Backend):
    """Tensors that no kernel takes."""

    def __init__(
        self,
        tensors: Sequence[Tensor | None],
        device: torch.device,
        units: Units | None = None,
        sparse: Mapping[int, SparseEntries] | None = None,
        on_host: bool = False,
    ) -> None:
        super().__init__(tensors, device, units, sparse)
        self.on_host = on_host

    def norms(self, p: float) -> Tensor:
        """See :class:`Backend`."""
        if self.units is None:
            return norms_of(self.tensors, p, self.device, self.on_host)
        parts = [self._norms_of_units(i, p) for i in range(len(self.tensors))]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=norm_dtype(self.device), device=self.device)

    def scale(self, factors: Factors, changed: Sequence[bool] | None = None) -> None:
        """See :class:`Backend`."""
        if isinstance(factors, float):
            factors = [factors] * (len(self.tensors) if self.units is None else sum(self.units.counts))
        if self.units is not None:
            self._scale_units(factors, changed)
        elif isinstance(factors, Tensor) and not self.on_host:
            for values, own in zip(self.tensors, factors.unbind(), strict=True):
                if values is not None:
                    values.mul_(own.to(values.device))
        else:
            _scale_by_numbers(self.tensors, factors.tolist() if isinstance(factors, Tensor) else factors)

    def clamp(self, low: float, high: float, which: Sequence[bool] | None = None) -> None:
        """See :class:`Backend`."""
        for i, values in enumerate(self.tensors):
            if values is not None and (which is None or which[i]):
                clamp(values, low, high)

    def _norms_of_units(self, i: int, p: float) -> Tensor:
        assert self.units is not None
        values, view = self.tensors[i], self.units.views[i]
        count = view[0] * view[2]
        if values is None:
            return torch.zeros(count, dtype=norm_dtype(self.device), device=self.device)
        if i not in self.sparse:
            return unit_norms(values, p, view).to(self.device)
        if count > 1 and (view[0] > 1 or view[1] > 1):
            raise TargetError("a sparse gradient has units along its first axis only: use axis=0, or dense gradients")
        rows = self.sparse[i].indices[0]
        stored = values.numel() // max(1, len(rows))
        norms = unit_norms(values, p, (1, 1, len(rows), stored))
        return combine(norms, p, rows if count > 1 else None, count).to(self.device)

    def _scale_units(self, factors: Tensor | Sequence[float], changed: Sequence[bool] | None) -> None:
        assert self.units is not None
        own = factors if isinstance(factors, Tensor) else torch.tensor(factors, dtype=torch.float64)
        for i, part in enumerate(own.split(list(self.units.counts))):
            values = self.tensors[i]
            if values is None or part.numel() == 0 or not (changed is None or changed[i]):
                continue
            part = part.to(values.device)  # noqa: PLW2901
            if i in self.sparse:
                rows = self.sparse[i].indices[0]
                part = part[rows if len(part) > 1 else rows * 0]  # noqa: PLW2901
                multiply(values, part.view((-1,) + (1,) * (values.dim() - 1)), part)
            else:
                groups, before, units, after = self.units.views[i]
                whole = part.view(groups, 1, units, 1).expand(groups, before, units, after)
                multiply(values, whole.reshape(values.shape), part)


def _scale_by_numbers(tensors: Sequence[Tensor | None], factors: Sequence[float]) -> None:
    """Multiply in as few calls as there are kinds of tensors and factors; what has factor 1 is not touched."""
    by_factor: dict[tuple[torch.device, torch.dtype, float], list[Tensor]] = {}
    for values, factor in zip(tensors, factors, strict=True):
        if values is not None and factor != 1:
            own = torch.view_as_real(values.conj()) if values.is_conj() else values
            own = (
                torch._neg_view(own) if own.is_neg() else own
            )  # the memory itself; lists of negated views cannot be multiplied
            by_factor.setdefault((own.device, own.dtype, factor), []).append(own)
    for (device, dtype, factor), alike in by_factor.items():
        for part in _steps(factor, dtype):
            # On the CPU a Python number would be rounded to float16 first; a 0-dim tensor is not.
            torch._foreach_mul_(alike, torch.tensor(part, dtype=torch.float64) if device.type == "cpu" else part)


def _steps(factor: float, dtype: torch.dtype) -> tuple[float, ...]:
    """Split a factor beyond the precision that multiplies by it (float32, or float64 for doubles) into several.

    >>> _steps(0.5, torch.float32), len(_steps(1e-40, torch.float32)), len(_steps(1e-40, torch.float64))
    ((0.5,), 2, 1)
    """
    if dtype in (torch.float64, torch.complex128) or factor == 0 or not math.isfinite(factor):
        return (factor,)
    fraction, power = math.frexp(factor)
    steps = 1 + abs(power) // 120
    if steps == 1:
        return (factor,)
    power = max(-360, min(power, 360))  # beyond it whatever is not 0 vanishes, or has no end
    each = [power * (i + 1) // steps - power * i // steps for i in range(steps)]
    return (math.ldexp(fraction, each[0]), *(2.0**power for power in each[1:]))
