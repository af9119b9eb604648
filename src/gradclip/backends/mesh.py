"""The backend of a mesh: tensors that are cut over ranks, measured by one packed all-reduce a step.

Every rank sums ``|g|^p`` over its own parts; the sums are added up over exactly the ranks over which a tensor is cut, never
over its replicas; and from then on all ranks have the same numbers and do the same to their parts, each by itself. A rank
that holds nothing joins all the same. Which collectives there are never depends on a value. Nothing communicates later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from gradclip.backends.backend import Backend, Factors, Units
from gradclip.backends.shards import Shards

__all__ = ["Mesh"]

_HIGHEST = 4
"""Up to this p the power of a float32 norm, and a sum of many, is a float64 that has lost nothing."""
_LARGEST = torch.finfo(torch.float64).max


class Mesh(Backend):
    """Cells are those of whole tensors; this rank's parts are another backend's work.

    Args:
        local: of this rank's parts.
        shards: how the tensors are cut.
        units: how whole tensors are cut into output units.
    """

    def __init__(self, local: Backend, shards: Shards, units: Units | None) -> None:
        super().__init__(local.tensors, shards.device, units, local.sparse)
        self.on_host = shards.device.type == "cpu"
        self.present = torch.ones(len(local.tensors), dtype=torch.bool, device=self.device)
        self._local, self._shards = local, shards
        self._index = None if units is None else shards.local_units(units)[1].to(self.device)

    def changed(self, change: Callable[[Backend], Backend]) -> Mesh:
        """Return the same with another backend for this rank's parts."""
        return Mesh(change(self._local), self._shards, self.units)

    def norms(self, p: float) -> Tensor:
        """See :class:`Backend`; every rank that has a part of any tensor calls it."""
        return self._measured([self], p)[0]

    def norms_beside(self, others: Sequence[Backend], p: float) -> list[Tensor]:
        """See :class:`Backend`; all in one all-reduce."""
        return self._measured([self, *others], p)

    def scale(self, factors: Factors, changed: Sequence[bool] | None = None) -> None:
        """See :class:`Backend`."""
        if not isinstance(factors, float) and self._index is not None:
            own = factors if isinstance(factors, Tensor) else torch.tensor(factors, dtype=torch.float64, device=self.device)
            factors = own[self._index]
        if isinstance(factors, Tensor):
            factors = factors.to(self._local.device)
        self._local.scale(factors, changed)

    def clamp(self, low: float, high: float, which: Sequence[bool] | None = None) -> None:
        """See :class:`Backend`."""
        self._local.clamp(low, high, which)

    def overflows(self, p: float) -> bool:
        """Whether a power of a finite gradient can be beyond float64, so that a norm may not be finite either."""
        return p < math.inf and (self._shards.wide or p > _HIGHEST)

    @property
    def may_be_present(self) -> list[bool]:
        """See :class:`Backend`: what this rank has no gradient of, another may have one of."""
        return [True] * len(self.tensors)

    def _measured(self, backends: Sequence[Backend], p: float) -> list[Tensor]:
        """Return the norms of the cells of backends that are cut alike, of the tensors that the first of them has anywhere."""
        own = torch.stack([self._cells(backend, p) for backend in backends])
        there = own.new_tensor([t is not None for t in self.tensors])
        if self._shards.counted is not None:
            there = torch.where(self._shards.counted, there, 0.0)
        norms, there = self._summed(own, there, p)
        self.present = there > 0
        for other in backends:
            other.present = self.present
        kept = self.present if self.units is None else self.present[self._shards.tensor_of(self.units)]
        return [norms[0], *torch.where(kept, norms[1:], 0.0).unbind()]

    def _summed(self, own: Tensor, there: Tensor, p: float) -> tuple[Tensor, Tensor]:
        """Return the norms over all ranks, and how many ranks have each tensor (or whether any has)."""
        if math.isinf(p):
            return self._largest(own, there)
        scale = torch.ones_like(own)
        if self.overflows(p):  # the largest first, by which all are divided
            largest, _ = self._largest(own, there)
            scale = torch.where((largest > 0) & largest.isfinite(), largest, scale)
        sums, there = self._reduce((own / scale) ** p, there, dist.ReduceOp.SUM)
        return sums ** (1 / p) * scale, there

    def _largest(self, own: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest over all ranks. A reduction may lose a NaN: Inf stands for it, the largest number for Inf."""
        sent = torch.where(own.isnan(), math.inf, own.clamp(max=_LARGEST))
        found, there = self._reduce(sent, there, dist.ReduceOp.MAX)
        return torch.where(found.isinf(), math.nan, torch.where(found == _LARGEST, math.inf, found)), there

    def _reduce(self, cells: Tensor, there: Tensor, operation: dist.ReduceOp.RedOpType) -> tuple[Tensor, Tensor]:
        """Reduce numbers of cells, and one of each tensor, packed into one all-reduce for each process group."""
        packed = torch.cat([cells.flatten(), there])
        for group, at in self._shards.places(self.units, len(cells)):
            own = packed[at]
            dist.all_reduce(own, operation, group=group)
            packed[at] = own
        flat, there = packed.split([cells.numel(), len(there)])
        return flat.view_as(cells), there

    def _cells(self, backend: Backend, p: float) -> Tensor:
        """The norms of this rank's parts, at the places of the cells of whole tensors."""
        assert isinstance(backend, Mesh)
        own = backend._local.norms(p).to(self.device)
        if self._index is not None and self.units is not None:
            own = own.new_zeros(sum(self.units.counts)).index_copy_(0, self._index, own)
        counted = self._shards.counted
        if counted is None:
            return own
        return torch.where(counted if self.units is None else counted[self._shards.tensor_of(self.units)], own, 0.0)
