"""A method laid out over one set of parameters: where each tensor's norms go, prepared once and used every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gradclip.backends import torch_eager as backend
from gradclip.backends.torch_payload import Payload
from gradclip.clipping import Clipping
from gradclip.errors import TargetError
from gradclip.rescales import Hard
from gradclip.scopes import Partition, PerElement, PerUnit, Whole
from gradclip.thresholds import Constant
from gradclip.torch.targets import Target

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """A method and the parameters it is for."""

    clipping: Clipping
    target: Target

    @cached_property
    def partition(self) -> Partition:
        """Where each parameter's cells go.

        Raises:
            TargetError: the method does not fit these parameters.
        """
        partition = self.clipping.scope.partition(self.target.entries)
        threshold = self.clipping.threshold
        if isinstance(threshold, Constant) and isinstance(threshold.value, tuple) and len(threshold.value) != partition.count:
            raise TargetError(
                f"{len(threshold.value)} thresholds for {partition.count} groups: give one for each, or one for all"
            )
        return partition

    @cached_property
    def clamps(self) -> bool:
        """Elements are clamped to an interval known in advance, so that no element needs a norm or a factor of its own."""
        c = self.clipping
        return isinstance(c.scope, PerElement) and c.threshold.uniform and isinstance(c.rescale, Hard)

    @cached_property
    def per_tensor(self) -> bool:
        """Every tensor is multiplied by one number."""
        return not isinstance(self.clipping.scope, (PerUnit, PerElement))

    @cached_property
    def goes_by_shape(self) -> bool:
        """It matters which shapes the parameters had when this was laid out: for parts of tensors, and for means."""
        parts = not self.per_tensor and not self.clamps
        return parts or self.clipping.norm.mean or self.clipping.threshold.needs_weights

    @cached_property
    def one_number(self) -> bool:
        """All tensors are clipped together to a limit known in advance: one norm decides, and the host can compare it."""
        c = self.clipping
        whole = isinstance(c.scope, Whole) and self.partition.complete and bool(self.partition.first)
        return whole and c.threshold.uniform and isinstance(c.rescale, Hard) and not c.norm.mean

    @cached_property
    def largest_share(self) -> float:
        """The largest cell's part of all elements."""
        p = self.partition
        sizes = [math.prod(e.shape) for e in self.target.entries] if p.views is None else [v[1] * v[3] for v in p.views]
        total = sum(math.prod(entry.shape) for entry in self.target.entries)
        return max(sizes, default=0) / max(total, 1)

    @cached_property
    def _first(self) -> Tensor:
        """The block of each cell, and ``count`` for the cells that are left out."""
        p = self.partition
        if isinstance(self.clipping.scope, PerUnit):
            parts = [
                torch.arange(f, f + n) if f is not None else torch.full((n,), p.count)
                for f, n in zip(p.first, p.cells, strict=True)
            ]
            return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)
        return torch.tensor([p.count if f is None else f for f in p.first], dtype=torch.long)

    @cached_property
    def _tensor_of(self) -> Tensor:
        """The tensor each cell belongs to."""
        return torch.repeat_interleave(
            torch.arange(len(self.partition.cells)), torch.tensor(self.partition.cells, dtype=torch.long)
        )

    @cached_property
    def _inside(self) -> Tensor:
        """Which tensors are part of a block."""
        return torch.tensor([f is not None for f in self.partition.first], dtype=torch.bool)

    @cached_property
    def _sent(self) -> dict[tuple[str, torch.device], Tensor]:
        return {}

    def _on(self, name: str, device: torch.device) -> Tensor:
        """Return a part of the layout on a device; it is sent there once, since sending waits for the device."""
        if (name, device) not in self._sent:
            self._sent[name, device] = getattr(self, name).to(device)
        return self._sent[name, device]

    def included_cells(self, like: Tensor) -> Tensor:
        """Which cells (tensors, under the element scope) are part of a block."""
        return self._on("_inside", like.device)

    def block_norms(self, cells: Tensor, payloads: Sequence[Payload]) -> Tensor:
        """Return the norm of every block from the norms of the cells (of the elements themselves, under that scope)."""
        if isinstance(self.clipping.scope, PerElement):
            kept = [x for x, f in zip(payloads, self.partition.first, strict=True) if f is not None]
            return backend.elements(kept, cells.device)
        p = self.partition
        norms = cells
        if not p.identity or p.count == 1:
            index = None if p.complete and p.count == 1 else self._on("_first", cells.device)
            norms = backend.combine(cells, self.clipping.norm.p, index, p.count + 1)[: p.count]
        if not self.clipping.norm.mean:
            return norms
        sizes = self.sizes(payloads).to(cells.device)
        totals = torch.zeros(p.count + 1, dtype=cells.dtype, device=cells.device)
        totals.index_add_(0, self._on("_first", cells.device), sizes)
        return self._mean(norms, totals[: p.count])

    def largest(self, of_tensors: Tensor) -> Tensor:
        """Return for every block the largest of a number that each tensor has."""
        p = self.partition
        if isinstance(self.clipping.scope, PerElement):
            included = [numel for numel, first in zip(p.cells, p.first, strict=True) if first is not None]
            kept = of_tensors[self.included_cells(of_tensors)]
            return torch.repeat_interleave(kept, torch.tensor(included, device=kept.device))
        cells = of_tensors if p.views is None else of_tensors[self._on("_tensor_of", of_tensors.device)]
        return backend.combine(cells, math.inf, self._on("_first", cells.device), p.count + 1)[: p.count]

    def cell_factors(self, factors: Tensor) -> Tensor:
        """Return the factor of every cell: its block's, or 1 where it is left out."""
        p = self.partition
        if p.identity and p.count != 1:
            return factors
        if p.complete and p.count == 1:
            return factors.expand(len(p.first))
        return torch.cat([factors, factors.new_ones(1)])[self._on("_first", factors.device)]

    def split(self, factors: Tensor) -> list[Tensor]:
        """Return each tensor's own factors, none where it is left out."""
        p = self.partition
        return [factors[0:0] if f is None else factors[f : f + n] for f, n in zip(p.first, p.cells, strict=True)]

    def sizes(self, payloads: Sequence[Payload]) -> Tensor:
        """Return how many elements each cell has, 0 where there is no gradient."""
        p = self.partition
        if p.views is None:
            counts = [0 if x.values is None else x.shape.numel() for x in payloads]
            return torch.tensor(counts, dtype=torch.float64)
        each = [0 if x.values is None else v[1] * v[3] for x, v in zip(payloads, p.views, strict=True)]
        return torch.tensor(each, dtype=torch.float64)[self._tensor_of]

    def tensor_cells(self, cells: Tensor) -> Tensor:
        """Return the plain p-norm of each tensor."""
        if self.partition.views is None:
            return cells
        return backend.combine(cells, self.clipping.norm.p, self._on("_tensor_of", cells.device), len(self.partition.cells))

    def by_tensor(self, cells: Tensor, sizes: Tensor | None) -> Tensor:
        """Return the norm of each tensor, in the method's norm."""
        norms = self.tensor_cells(cells)
        if sizes is None:
            return norms
        totals = torch.zeros(len(norms), dtype=torch.float64)
        if self.partition.views is None:
            totals = sizes
        else:
            totals.index_add_(0, self._tensor_of, sizes)
        return self._mean(norms, totals.to(norms))

    def total(self, cells: Tensor, sizes: Tensor | None) -> Tensor:
        """Return the norm of all tensors that are not left out, in the method's norm."""
        if None in self.partition.first:
            kept = self.included_cells(cells)
            if self.partition.views is not None:
                kept = kept[self._on("_tensor_of", cells.device)]
            cells = cells[kept]
            sizes = None if sizes is None else sizes[kept.to(sizes.device)]
        norm = backend.combine(cells, self.clipping.norm.p, None, 1)
        return (norm if sizes is None else self._mean(norm, sizes.sum().to(norm))).reshape(())

    def _mean(self, norms: Tensor, sizes: Tensor) -> Tensor:
        return norms / sizes.clamp(min=1) ** (1 / self.clipping.norm.p)
