"""Where each tensor's norms go: the scope of a method, laid out over one set of parameters and used every step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradclip._cached import cached_property
from gradclip.backends import Backend, Shards, Units, choose, choose_sharded, combine, local_of, take_all
from gradclip.norms import Norm
from gradclip.scopes import Entry, Partition

__all__ = ["Layout"]


class Layout:
    """The map from cells (tensors, or units of one) to blocks and to tensors.

    Args:
        partition: which cell belongs to which block.
        entries: the tensors.
        norm: how blocks are measured.
        shards: how the tensors are cut over ranks, if they are.
    """

    def __init__(self, partition: Partition, entries: Sequence[Entry], norm: Norm, shards: Shards | None = None) -> None:
        self.partition, self.norm, self.shards = partition, norm, shards
        self.first, self.count, self.complete = partition.first, partition.count, partition.complete
        self.units = None if partition.views is None else Units(partition.views, partition.cells)
        self.shapes = [entry.shape for entry in entries]
        self._sizes = [math.prod(shape) for shape in self.shapes] if shards is None else list(shards.sizes)
        self.cells_are_tensors = self.units is None and not norm.mean
        """The norms of cells are those of the tensors."""
        self.one_block = self.units is None and self.complete and self.count == 1
        self._on_device: dict[tuple[str, torch.device], Tensor] = {}

    def backend_for(self, tensors: Sequence[Tensor | None]) -> Backend:
        """Return the backend for strided tensors that are laid out like this."""
        if self.shards is not None:
            return choose_sharded([local_of(t) for t in tensors], self.units, self.shards)
        return take_all(tensors, self.units) or choose(tensors, self.units)

    @cached_property
    def included(self) -> list[bool]:
        """Which tensors are part of a block."""
        return [block is not None for block in self.first]

    @cached_property
    def largest_share(self) -> float:
        """The largest cell's part of all elements."""
        sizes = self._sizes if self.units is None else [view[1] * view[3] for view in self.units.views]
        return max(sizes, default=0) / max(sum(self._sizes), 1)

    @cached_property
    def _block_of(self) -> Tensor:
        """The block of each cell, and ``count`` for the cells that are left out."""
        starts = [self.count if block is None else block for block in self.first]
        if self.units is None:
            return torch.tensor(starts, dtype=torch.long)
        parts = [
            torch.full((n,), start) if start == self.count else torch.arange(start, start + n)
            for start, n in zip(starts, self.units.counts, strict=True)
        ]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)

    @cached_property
    def _tensor_of(self) -> Tensor:
        """The tensor each cell belongs to."""
        counts = self.partition.cells if self.units is None else self.units.counts
        return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.long))

    @cached_property
    def _included(self) -> Tensor:
        return torch.tensor(self.included, dtype=torch.bool)

    def _on(self, name: str, device: torch.device) -> Tensor:
        """Return a part of the map on a device; it is sent there once, since sending waits for the device."""
        if (name, device) not in self._on_device:
            self._on_device[name, device] = getattr(self, name).to(device)
        return self._on_device[name, device]

    def included_tensors(self, like: Tensor) -> Tensor:
        """Return which tensors are part of a block, on the device of ``like``."""
        return self._on("_included", like.device)

    def block_norms(self, backend: Backend, cells: Tensor) -> Tensor:
        """Return the norm of every block from the norms of its cells, in the method's norm."""
        norms = cells
        if self.one_block:
            norms = backend.total(cells, self.norm.p).reshape(1)
        elif not self.partition.identity:
            norms = backend.combined(cells, self.norm.p, self._on("_block_of", cells.device), self.count + 1)[: self.count]
        return self._mean(norms, self._on_block(self._cell_sizes(backend, cells))) if self.norm.mean else norms

    def cells_of(self, tensors: Tensor) -> Tensor:
        """Return for every cell a number that each tensor has."""
        return tensors if self.units is None else tensors[self._on("_tensor_of", tensors.device)]

    def largest(self, of_tensors: Tensor) -> Tensor:
        """Return for every block the largest of a number that each tensor has."""
        cells = self.cells_of(of_tensors)
        return combine(cells, math.inf, self._on("_block_of", cells.device), self.count + 1)[: self.count]

    def smallest(self, of_cells: Tensor) -> Tensor:
        """Return for every block the smallest of a number that each cell has; inf where it has none."""
        least = of_cells.new_full((self.count + 1,), math.inf)
        return least.scatter_reduce_(0, self._on("_block_of", of_cells.device), of_cells, "amin")[: self.count]

    def largest_in_tensors(self, of_cells: Tensor) -> Tensor:
        """Return for every tensor the largest of a number that each of its cells has."""
        if self.units is None:
            return of_cells
        return combine(of_cells, math.inf, self._on("_tensor_of", of_cells.device), len(self.first))

    def cell_factors(self, factors: Tensor) -> Tensor:
        """Return the factor of every cell: its block's, or 1 where it is left out."""
        if self.one_block:
            return factors.expand(len(self.first))
        if self.partition.identity:
            return factors
        return torch.cat([factors, factors.new_ones(1)])[self._on("_block_of", factors.device)]

    def tensor_factors(self, factors: Sequence[float]) -> list[float]:
        """Return the factor of every tensor that is one cell, from those of the blocks, which the host knows."""
        return [1.0 if block is None else factors[block] for block in self.first]

    def cell_limits(self, limits: Tensor | float) -> Tensor | float:
        """Return the plain p-norm that each cell may have, from the limits of the blocks, where a cell is a block."""
        if not self.norm.mean:
            return limits
        each = torch.tensor(self._sizes, dtype=torch.float64) if self.units is None else self._unit_sizes
        return limits * each.clamp(min=1) ** (1 / self.norm.p)

    def tensor_norms(self, backend: Backend, cells: Tensor) -> Tensor:
        """Return the norm of each tensor, in the method's norm."""
        norms = cells
        if self.units is not None:
            norms = combine(cells, self.norm.p, self._on("_tensor_of", cells.device), len(self.first))
        return self._mean(norms, self._tensor_sizes(backend).to(norms)) if self.norm.mean else norms

    def total(self, backend: Backend, cells: Tensor) -> Tensor:
        """Return the norm of all tensors that are not left out, 0-dim, in the method's norm."""
        sizes = self._cell_sizes(backend, cells) if self.norm.mean else None
        if not self.complete:
            kept = self._on("_included", cells.device)
            kept = kept if self.units is None else kept[self._on("_tensor_of", cells.device)]
            cells = cells[kept]
            sizes = None if sizes is None else sizes[kept]
        norm = backend.total(cells, self.norm.p)
        return norm if sizes is None else self._mean(norm, sizes.sum())

    @cached_property
    def _unit_sizes(self) -> Tensor:
        assert self.units is not None
        return torch.tensor([view[1] * view[3] for view in self.units.views], dtype=torch.float64)[self._tensor_of]

    @cached_property
    def _elements(self) -> Tensor:
        return torch.tensor(self._sizes, dtype=torch.float64)

    def _tensor_sizes(self, backend: Backend) -> Tensor:
        """How many elements each tensor has, 0 where there is none."""
        return torch.where(backend.present, self._on("_elements", backend.present.device), 0.0)

    def _cell_sizes(self, backend: Backend, like: Tensor) -> Tensor:
        sizes = self._tensor_sizes(backend)
        if self.units is not None:
            sizes = torch.where(sizes[self._on("_tensor_of", sizes.device)] > 0, self._on("_unit_sizes", sizes.device), 0.0)
        return sizes.to(like)

    def _on_block(self, sizes: Tensor) -> Tensor:
        totals = torch.zeros(self.count + 1, dtype=sizes.dtype, device=sizes.device)
        return totals.index_add_(0, self._on("_block_of", sizes.device), sizes)[: self.count]

    def _mean(self, norms: Tensor, sizes: Tensor) -> Tensor:
        return norms / sizes.clamp(min=1) ** (1 / self.norm.p)
