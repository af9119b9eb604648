"""Several backends for one list of tensors: some on another device, or of a kind that a kernel does not take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradclip.backends.backend import Backend, Factors, SparseEntries, Units

__all__ = ["Mixed"]


class Mixed(Backend):
    """Each part looks after the tensors at some positions.

    Args:
        parts: backends, and the positions of their tensors.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor | None],
        units: Units | None,
        sparse: Mapping[int, SparseEntries] | None,
        parts: Sequence[tuple[Backend, list[int]]],
    ) -> None:
        super().__init__(tensors, parts[0][0].device, units, sparse)
        self.on_host = all(part.on_host for part, _ in parts)
        self._parts = [(part, positions, self._cells_of(positions)) for part, positions in parts]

    def norms(self, p: float) -> Tensor:
        """See :class:`Backend`."""
        each = [part.norms(p).to(self.device) for part, _, _ in self._parts]
        joined = torch.cat(each)
        order = torch.cat([torch.tensor(cells, dtype=torch.long) for _, _, cells in self._parts]).to(self.device)
        return torch.empty_like(joined).index_copy_(0, order, joined)

    def scale(self, factors: Factors, changed: Sequence[bool] | None = None) -> None:
        """See :class:`Backend`."""
        for part, positions, cells in self._parts:
            if isinstance(factors, float):
                own: Factors = factors
            else:
                own = factors[cells].to(part.device) if isinstance(factors, Tensor) else [factors[i] for i in cells]
            part.scale(own, None if changed is None else [changed[i] for i in positions])

    def clamp(self, low: float, high: float, which: Sequence[bool] | None = None) -> None:
        """See :class:`Backend`."""
        for part, positions, _ in self._parts:
            part.clamp(low, high, None if which is None else [which[i] for i in positions])

    def _cells_of(self, positions: Sequence[int]) -> list[int]:
        if self.units is None:
            return list(positions)
        counts = self.units.counts
        ends = [0]
        for count in counts:
            ends.append(ends[-1] + count)
        return [cell for i in positions for cell in range(ends[i], ends[i + 1])]
