"""The backend of a mesh: tensors that are cut over ranks, measured by one packed all-reduce a step.

Every rank sums ``|g|^p`` over its own parts; the sums are added up over exactly the ranks over which a tensor is cut, never
over its replicas; and from then on all ranks have the same numbers and do the same to their parts, each by itself. A rank
that holds nothing joins all the same. Nothing communicates later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from gradclip.backends.backend import Backend, Factors, Units
from gradclip.backends.shards import Reduction, Shards

__all__ = ["Mesh"]


class Mesh(Backend):
    """Cells are those of whole tensors; this rank's parts are another backend's work.

    Args:
        local: of this rank's parts.
        shards: how the tensors are cut.
        units: how whole tensors are cut into output units.
    """

    def __init__(self, local: Backend, shards: Shards, units: Units | None) -> None:
        super().__init__(local.tensors, local.device, units, local.sparse)
        self.on_host = local.on_host
        self._local, self._shards = local, shards
        self._index = None if units is None else shards.local_units(units)[1].to(local.device)

    def norms(self, p: float) -> Tensor:
        """See :class:`Backend`; every rank that has a part of any tensor calls it."""
        return self._joined([self], p)[0]

    def norms_beside(self, other: Backend, p: float) -> tuple[Tensor, Tensor]:
        """See :class:`Backend`; both in one all-reduce."""
        assert isinstance(other, Mesh)
        mine, others = self._joined([self, other], p)
        return mine, others

    def scale(self, factors: Factors, changed: Sequence[bool] | None = None) -> None:
        """See :class:`Backend`."""
        if not isinstance(factors, float) and self._index is not None:
            own = factors if isinstance(factors, Tensor) else torch.tensor(factors, dtype=torch.float64, device=self.device)
            factors = own[self._index]
        self._local.scale(factors, changed)

    def clamp(self, low: float, high: float, which: Sequence[bool] | None = None) -> None:
        """See :class:`Backend`."""
        self._local.clamp(low, high, which)

    def outside(self, low: float, high: float, which: Sequence[bool] | None = None) -> Tensor:
        """See :class:`Backend`; whether any rank has such an element."""
        count = len(self.tensors)
        each = [which is None or which[i] for i in range(count)]
        none = torch.zeros((), dtype=torch.bool, device=self.device)
        own = [self._local.outside(low, high, [i == j for j in range(count)]) if each[i] else none for i in range(count)]
        return self.agree(torch.stack([none, *own])[1:]).any()

    def agree(self, flags: Tensor) -> Tensor:
        """See :class:`Backend`."""
        joined = flags.to(torch.float64)
        for reduction in self._shards.reductions:
            self._reduce(joined, reduction, torch.tensor(reduction.tensors, device=joined.device), dist.ReduceOp.MAX)
        return joined.to(flags.dtype)

    def nonfinite(self) -> list[bool]:
        """See :class:`Backend`; of any rank's part."""
        own = torch.tensor(self._local.nonfinite(), dtype=torch.float64, device=self.device)
        return [bool(flag) for flag in self.agree(own).tolist()]

    def _joined(self, backends: Sequence[Mesh], p: float) -> list[Tensor]:
        """Return the norms of the cells of backends that are cut alike."""
        largest = math.isinf(p)
        norms = [backend._local_norms(p) for backend in backends]
        sums = torch.stack([own.nan_to_num(nan=math.inf, posinf=math.inf) if largest else own**p for own in norms])
        operation = dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM
        self._reduce_cells(sums, operation)
        if not largest and self.on_host and bool(((sums == math.inf) | ((sums > 0) & (sums < 1e-290))).any()):
            return self._joined_at_extremes(norms, p)
        return list((sums if largest else sums ** (1 / p)).unbind())

    def _joined_at_extremes(self, norms: Sequence[Tensor], p: float) -> list[Tensor]:
        """Take out the largest first, where powers would overflow or vanish: all ranks see the same sums, so all come here."""
        own = torch.stack(list(norms))
        largest = own.nan_to_num(nan=math.inf, posinf=math.inf)
        self._reduce_cells(largest, dist.ReduceOp.MAX)
        scale = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
        sums = (own / scale) ** p
        self._reduce_cells(sums, dist.ReduceOp.SUM)
        return list((sums ** (1 / p) * scale).unbind())

    def _local_norms(self, p: float) -> Tensor:
        """The norms of this rank's parts, at the places of the cells of whole tensors."""
        own = self._local.norms(p)
        if self._index is None:
            return own
        assert self.units is not None
        return own.new_zeros(sum(self.units.counts)).index_copy_(0, self._index, own)

    def _reduce_cells(self, sums: Tensor, operation: dist.ReduceOp.RedOpType) -> None:
        for reduction in self._shards.reductions:
            self._reduce(sums, reduction, self._cells_of(reduction.tensors), operation)

    def _reduce(self, values: Tensor, reduction: Reduction, at: Tensor, operation: dist.ReduceOp.RedOpType) -> None:
        """Reduce some columns in place, packed into one."""
        packed = values[..., at].contiguous()
        for group in reduction.groups:
            dist.all_reduce(packed, operation, group=group)
        values[..., at] = packed

    def _cells_of(self, tensors: Sequence[int]) -> Tensor:
        if self.units is None:
            return torch.tensor(tensors, device=self.device)
        ends = [0]
        for count in self.units.counts:
            ends.append(ends[-1] + count)
        return torch.cat([torch.arange(ends[i], ends[i + 1], device=self.device) for i in tensors])
