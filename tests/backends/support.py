"""Tensors that both the compiled kernel and the GPU kernels take as they are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from gradclip.backends import Units, cpu

PLAIN = {
    "transposed": lambda: torch.randn(4, 5).t(),
    "channels last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "a scalar": lambda: torch.randn(()),
    "a parameter": lambda: nn.Parameter(torch.randn(3)),
    "one that requires grad": lambda: torch.randn(3, requires_grad=True) * 2,
    "an axis of one": lambda: torch.randn(4, 1, 5).as_strided((4, 1, 5), (5, 999, 1)),
}


def units_of(tensors, counts):
    """Cut tensors into so many units each, runs of their elements; None for no units."""
    if counts is None:
        return None
    sizes = [0 if t is None else t.numel() // max(n, 1) for t, n in zip(tensors, counts, strict=True)]
    return Units(tuple((1, 1, n, size) for n, size in zip(counts, sizes, strict=True)), tuple(counts))


def taken(kind, tensors, counts=None):
    """The backend of a kind for tensors; ``left_out`` are those that it does not take."""
    backend, left_out = kind.take(tensors, units_of(tensors, counts))
    backend.left_out = list(left_out)
    return backend


class Table(NamedTuple):
    """What the compiled kernel says of tensors, and does with them in plain numbers."""

    tensors: list
    pieces: object
    slots: int
    cells: int
    bytes: int
    kinds: int
    left_out: list

    @property
    def _backend(self):
        units = None if self.cells == len(self.tensors) else Units((), ())
        return cpu.Cpu(self.tensors, units, None, self[1:])

    def norms(self, p):
        return self._backend.norms(p).tolist()

    def scale(self, factors):
        self._backend.scale(factors)

    def limit(self, limits, p):
        norms, changed = self._backend.limit(torch.tensor(limits, dtype=torch.float64), p)
        return norms.tolist(), changed

    def clamp(self, low, high):
        largest, changed = self._backend.clamp_and_measure(low, high)
        return largest.tolist(), changed


def describe(tensors, cells=None):
    """Have the kernel look at tensors, each cut into so many cells."""
    tensors = list(tensors)
    items = tensors if cpu._API is not None else [cpu._facts(t) for t in tensors]
    return Table(tensors, *cpu._kernel.describe(items, None if cells is None else tuple(cells), cpu._TYPES, cpu._API))
