"""The seam: one list of tensors, and the few things that are done to it.

A backend is a value that is chosen once a step (``chooser.py``) and lives for that step. Above it are vectors of norms, limits
and factors, and nobody asks what kind of tensors there are or where they lie; below it nobody knows a method or a policy.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gradclip._cached import cached_property
from gradclip.backends import elements, stock_norms
from gradclip.backends.combine import combine, combined_on_host, vector

__all__ = ["Backend", "Factors", "SparseEntries", "Units"]

_FEW = 1000
"""Up to this many norms of which the host knows, Python numbers are combined quicker than tensors."""

Factors = Tensor | Sequence[float] | float
"""One number a cell, on the backend's device or known to the host; or one for all."""


@dataclass(frozen=True)
class Units:
    """How every tensor is cut into output units: ``views[i]`` is tensor i's shape (groups, before, units, after)."""

    views: tuple[tuple[int, int, int, int], ...]
    counts: tuple[int, ...]
    """How many units each tensor has."""

    @cached_property
    def all_contiguous(self) -> bool:
        """The units of every tensor are runs of its elements, one after another."""
        return all(view[1] == 1 for view in self.views)

    def of(self, positions: Sequence[int]) -> Units:
        """Return the units of some of the tensors."""
        return Units(tuple(self.views[i] for i in positions), tuple(self.counts[i] for i in positions))


class SparseEntries(NamedTuple):
    """Where the stored values of a sparse tensor belong."""

    indices: Tensor
    shape: torch.Size


class Backend(ABC):
    """The tensors of one step as one kind of code sees them.

    A *cell* is what is measured by itself: a tensor, or one output unit of it where there are ``units``. A tensor that is not
    there (None) has cells that measure 0. Only ``norms``, ``scale`` and ``clamp`` have to be written for a new backend; the
    rest can be left as it is here.

    Args:
        tensors: plain strided tensors, or the stored values of sparse ones.
        device: where norms, limits and factors are.
        units: how tensors are cut into output units; None where a cell is a tensor.
        sparse: for the tensors that are values of a sparse one, by position.
    """

    on_host = False
    """Norms are in the host's memory, so that looking at one waits for nothing."""

    def __init__(
        self,
        tensors: Sequence[Tensor | None],
        device: torch.device,
        units: Units | None = None,
        sparse: Mapping[int, SparseEntries] | None = None,
    ) -> None:
        self.tensors, self.device, self.units, self.sparse = tensors, device, units, sparse or {}

    @abstractmethod
    def norms(self, p: float) -> Tensor:
        """Return the p-norm of every cell as a float64 vector on ``device``; a NaN or Inf element makes it non-finite."""

    @abstractmethod
    def scale(self, factors: Factors, changed: Sequence[bool] | None = None) -> None:
        """Multiply every cell by its factor, in place; what has factor 1 keeps its bits.

        Args:
            factors: one a cell.
            changed: the tensors that have any factor other than 1, where somebody knows.
        """

    @abstractmethod
    def clamp(self, low: float, high: float, which: Sequence[bool] | None = None) -> None:
        """Clamp every element of these tensors (by default all) to [low, high], in place; a complex element keeps its angle."""

    def limit(self, limits: Tensor | float, p: float) -> tuple[Tensor, bool] | None:
        """Bring every cell down to its limit as soon as it is measured.

        Returns:
            The norms before, and whether any was above its limit; None, and nothing is done, where this cannot be.
        """
        return None

    def clamp_and_measure(self, low: float, high: float) -> tuple[Tensor, bool] | None:
        """Clamp every element to [low, high]; return the largest size in each tensor before, and whether any was outside."""
        return None

    @property
    def may_be_present(self) -> list[bool]:
        """Which tensors there may be, before any is measured."""
        return [t is not None for t in self.tensors]

    @cached_property
    def present(self) -> Tensor:
        """Which tensors there are, where that is known: on the host, or on ``device`` once all ranks have measured."""
        return torch.tensor([t is not None for t in self.tensors], dtype=torch.bool)

    def norms_beside(self, others: Sequence[Backend], p: float) -> list[Tensor]:
        """Return the norms of the cells of this list and of others that are laid out alike, measured together."""
        return [self.norms(p), *[other.norms(p).to(self.device) for other in others]]

    def like(self, tensors: Sequence[Tensor | None]) -> Backend | None:
        """Return this kind of backend for other tensors, where it has to be this kind; None where any will do."""
        return None

    def combined(self, norms: Tensor, p: float, index: Tensor | None, count: int) -> Tensor:
        """Return the norm of every block from those of its cells; ``index`` names each cell's block (None: one block)."""
        return combine(norms, p, index, count)

    def total(self, norms: Tensor, p: float) -> Tensor:
        """Return the norm of all cells together, 0-dim, from their norms."""
        if self.on_host and 0 < norms.numel() <= _FEW:
            return vector(array("d", (combined_on_host(norms.tolist(), p),)))[0]
        return combine(norms, p, None, 1).reshape(())

    def conclude(self, norms: Tensor, p: float, limit: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Return the norm of all cells, PyTorch's ``min(1, limit / (norm + 1e-6))``, and the norm in another dtype."""
        total = self.total(norms, p)
        return total, torch.clamp(limit / (total + 1e-6), max=1.0), total.to(dtype)

    def clamp_each(self, limits: Tensor | Sequence[float]) -> None:
        """Clamp the elements of each tensor to its own limit, in place; inf leaves a tensor alone."""
        elements.clamp_each(self.tensors, limits)

    def outside(self, low: float, high: float, which: Sequence[bool] | None = None) -> Tensor:
        """Return whether any element of these tensors lies outside [low, high], as a 0-dim tensor on ``device``."""
        chosen = [t for i, t in enumerate(self.tensors) if t is not None and (which is None or which[i])]
        return elements.outside(chosen, low, high, self.device)

    def extremes(self) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Return how far the elements of each tensor go above 0, and below, as tensors of one element."""
        return elements.extremes(self.tensors)

    def sizes_of_elements(self, which: Sequence[bool], shapes: Sequence[Sequence[int]]) -> Tensor:
        """Return the absolute value of every element of these tensors as one vector on ``device``; 0 where there is none."""
        dense = [elements.dense(self, i, shapes[i]) for i, w in enumerate(which) if w]
        kept = stock_norms.norm_dtype(self.device)
        sizes = [elements.sizes(t).flatten().to(device=self.device, dtype=kept) for t in dense]
        return torch.cat(sizes) if sizes else torch.zeros(0, dtype=kept, device=self.device)

    def scale_elements(self, factors: Sequence[Tensor | None]) -> None:
        """Multiply each element by its own factor, in place; one flat vector for each tensor, None to leave it alone."""
        elements.scale_elements(self, factors)

    def overflows(self, p: float) -> bool:
        """Whether the norm of a cell may be infinite though all its elements are finite."""
        return p < math.inf or any(t is not None and t.is_complex() for t in self.tensors)

    def nonfinite(self) -> list[bool]:
        """Return which tensors hold a NaN or an Inf; reads the device."""
        return [t is not None and not bool(t.isfinite().all()) for t in self.tensors]

    def zero_nonfinite(self, which: Sequence[bool]) -> None:
        """Set the NaN and Inf elements of these tensors to 0."""
        for tensor, chosen in zip(self.tensors, which, strict=True):
            if chosen and tensor is not None:
                tensor.masked_fill_(~tensor.isfinite(), 0)
