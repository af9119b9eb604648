"""A whole backend in plain NumPy: what a new one has to bring (CONTRIBUTING, "Add a backend").

It takes strided CPU tensors of any dtype, looks at each as an array of float64 (or complex128), and writes back what changed.
"""

from __future__ import annotations

import numpy as np
import torch

from gradclip.backends import Backend

HOST = torch.device("cpu")


class NumPy(Backend):
    """Tensors as NumPy arrays."""

    on_host = True

    @staticmethod
    def take(tensors, units=None, sparse=None):
        """Say which tensors it takes: return the backend, and the positions of those that it leaves to others."""
        there = [(i, t) for i, t in enumerate(tensors) if t is not None]
        left = [i for i, t in there if t.device != HOST or 0 in t.stride() or i in (sparse or {})]
        return NumPy([None if i in left else t for i, t in enumerate(tensors)], HOST, units, sparse), left

    def norms(self, p):
        """One norm a cell, as a float64 vector of PyTorch; 0 where there is no tensor."""
        cells = [_norms(t, self._view(i), p) for i, t in enumerate(self.tensors)]
        return torch.from_numpy(np.concatenate([np.zeros(0), *cells]))

    def scale(self, factors, changed=None):
        """Multiply every cell by its factor: a number for all, numbers, or a vector."""
        counts = [self._view(i)[0] * self._view(i)[2] for i in range(len(self.tensors))]
        own = np.full(sum(counts), factors) if isinstance(factors, float) else np.asarray(factors, dtype=np.float64)
        for i, part in enumerate(np.split(own, np.cumsum(counts)[:-1]) if counts else []):
            if self.tensors[i] is not None and (part != 1).any():
                groups, _, units, _ = self._view(i)
                cells = _array(self.tensors[i]).reshape(self._view(i))
                _write(self.tensors[i], cells * part.reshape(groups, 1, units, 1))

    def clamp(self, low, high, which=None):
        """Clamp every element; a complex one keeps its angle."""
        for i, tensor in enumerate(self.tensors):
            if tensor is None or (which is not None and not which[i]):
                continue
            x = _array(tensor)
            size = np.abs(x) if tensor.is_complex() else None
            _write(tensor, x.clip(low, high) if size is None else np.where(size > high, x * (high / np.maximum(size, high)), x))

    def _view(self, i):
        if self.units is not None:
            return self.units.views[i]
        return (1, 1, 1, 0 if self.tensors[i] is None else self.tensors[i].numel())


def _norms(tensor, view, p):
    if tensor is None or tensor.numel() == 0:
        return np.zeros(view[0] * view[2])
    sizes = np.abs(_array(tensor)).reshape(view)
    largest = sizes.max(axis=(1, 3), keepdims=True)
    with np.errstate(invalid="ignore"):
        scale = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
        joined = sizes.max(axis=(1, 3)) if p == np.inf else ((sizes / scale) ** p).sum(axis=(1, 3)) ** (1 / p)
    return (joined * (1.0 if p == np.inf else scale[:, 0, :, 0])).ravel()


def _array(tensor):
    return tensor.detach().to(torch.complex128 if tensor.is_complex() else torch.float64).numpy()


def _write(tensor, array):
    tensor.copy_(torch.from_numpy(np.ascontiguousarray(array).reshape(tensor.shape)))
