"""The GPU backend: norms, scaling and clamping of a list of tensors in one launch each, whatever their number.

Optional, as the compiled kernel is: without Triton, with ``GRADCLIP_KERNEL=0`` in the environment, or where Triton finds
nothing to compile with, :func:`describe` returns None and everything goes through PyTorch's own operations. It takes strided
tensors of float32, bfloat16 and float16 on one GPU whose elements fill one stretch of memory; the caller looks after the
others.

Nothing is read back from the device: a result is a tensor there, in float64. Under ``TRITON_INTERPRET=1`` Triton runs kernels
in Python on the CPU, and this backend takes CPU tensors: that is how it is tested without a GPU.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from operator import attrgetter
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gradclip.backends.chunks import KINDS, TILE, Layout, addresses_of, capturing, layout_of, send

__all__ = ["DeviceTable", "conclude", "describe", "takes", "usable"]

_FOUND = os.environ.get("GRADCLIP_KERNEL", "1") != "0" and importlib.util.find_spec("triton") is not None
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_TYPES = {Tensor, nn.Parameter}
_POWERS = {1.0: 1, 2.0: 2, math.inf: 0}
_dtype_of, _layout_of, _device_of = attrgetter("dtype"), attrgetter("layout"), attrgetter("device")
_JOINED = 1024
"""Parts of a cell, or cells, that the one program that joins them looks at together."""
_LAUNCH = {"num_warps": 8, "enable_fp_fusion": True}
"""256 threads look at 16 elements each; fused multiply-adds as in PyTorch, whatever a version of Triton has as its default."""


class DeviceTable(NamedTuple):
    """Tensors on one device as the kernels see them."""

    tensors: Sequence[Tensor | None]
    """Those that the kernels take; kept alive here."""
    left_out: Sequence[int]
    """The tensors that they cannot take; their cells measure 0 and are never changed."""
    device: torch.device
    layout: Layout
    addresses: Tensor

    def norms(self, p: float) -> Tensor:
        """Return the p-norm of every cell, for p of 1, 2 and inf; exact for finite elements of any size."""
        kernels, power = _kernels("measuring"), _POWERS[p]
        out = torch.empty(self.layout.slots, dtype=torch.float64, device=self.device)
        with _on(self.device):
            for width, lines, table in self.layout.tables():
                if width:
                    kernels.measure[(lines,)](table, self.addresses, out, self.layout.cells, P=power, **self._shape(width))
                else:
                    kernels.join[(lines,)](table, out, P=power, TILE=_JOINED, **_LAUNCH)
        return out[: self.layout.cells]

    def scale(self, factors: Tensor | Sequence[float]) -> None:
        """Multiply every cell by its factor, or by the only one, in place.

        Args:
            factors: a vector on this device, or numbers of the host, which are sent without waiting.
        """
        own = factors.to(self.device, torch.float64) if isinstance(factors, Tensor) else self._sent(factors)
        step = own.stride(0) if own.numel() > 1 else 0
        with _on(self.device):
            for width, lines, table in self.layout.tables():
                if width:
                    _kernels("changing").scale[(lines,)](table, self.addresses, own, step, **self._shape(width))
        self._changed()

    def clamp(self, low: float, high: float) -> None:
        """Clamp every element to [low, high], in place."""
        self._clamp(low, high, write=True)
        self._changed()

    def outside(self, low: float, high: float) -> Tensor:
        """Return whether any element lies outside [low, high], as a 0-dim tensor."""
        return self._clamp(low, high, write=False)

    def _clamp(self, low: float, high: float, write: bool) -> Tensor:
        found = []
        with _on(self.device):
            for width, lines, table in self.layout.tables():
                if width:
                    found.append(torch.empty(lines, dtype=torch.int32, device=self.device))
                    _kernels("changing").clamp[(lines,)](
                        table, self.addresses, found[-1], low, high, WRITE=write, **self._shape(width)
                    )
        return torch.cat(found).any() if found else torch.zeros((), dtype=torch.bool, device=self.device)

    def _sent(self, numbers: Sequence[float]) -> Tensor:
        return send(np.array(numbers, dtype=np.float64), self.device).ready()

    def _shape(self, width: int) -> dict[str, int | bool]:
        """What a kernel is compiled for."""
        return {"KINDS": self.layout.kinds, "ROWS": TILE // width, "COLS": width, **_LAUNCH}

    def _changed(self) -> None:
        """Tell autograd, as an in-place operation would."""
        torch.autograd.graph.increment_version([t for t in self.tensors if t is not None])


def conclude(norms: Tensor, p: float, limit: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return the norm of all cells, ``min(1, limit / (norm + 1e-6))``, both float64, and the norm in another dtype.

    Args:
        norms: of the cells, float64, at least one.
        p: 1, 2 or inf.
        limit: what the norm is brought to.
        dtype: of the last.
    """
    out = torch.empty(2, dtype=torch.float64, device=norms.device)
    returned = torch.empty((), dtype=dtype, device=norms.device)
    near = float(np.float32(limit)) if abs(limit) < 1e38 else limit  # a kernel is handed float32
    rest = limit - near if math.isfinite(limit) else 0.0
    with _on(norms.device):
        _kernels("measuring").conclude[(1,)](
            norms.contiguous(), out, returned, norms.numel(), near, rest, P=_POWERS[p], TILE=_JOINED, **_LAUNCH
        )  # fmt: skip
    return out[0], out[1], returned


def takes(tensor: Tensor, p: float = 2) -> bool:
    """Whether a tensor is on a device that this backend is for, and the norm one that it measures."""
    return _FOUND and (tensor.is_cuda or (_INTERPRETED and tensor.device.type == "cpu")) and p in _POWERS


def usable(tensor: Tensor, p: float = 2) -> bool:
    """Whether the kernels can be started for a tensor's device, here and now."""
    if not takes(tensor, p) or torch.compiler.is_compiling():
        return False
    return capturing(tensor.device) or _works(tensor.device)


def describe(tensors: Sequence[Tensor | None], cells: Sequence[int] | None = None, p: float = 2) -> DeviceTable | None:
    """Look at tensors once, so that the kernels can work on them; None where they cannot, or while a compiler traces.

    Args:
        tensors: None has cells that measure 0; those on another device than the first are left out.
        cells: into how many runs of equal length each tensor is cut; by default each is one cell.
        p: the norm that is to be measured.
    """
    if not _FOUND:
        return None
    for first in tensors:
        if first is not None:
            break
    else:
        return None
    if not (first.is_cuda or _INTERPRETED) or not usable(first, p):
        return None
    return _table(tensors, None if cells is None else tuple(cells), first.device)


def _table(tensors: Sequence[Tensor | None], cells: tuple[int, ...] | None, device: torch.device) -> DeviceTable:
    left = _left_out(tensors, cells, device)
    taken = list(tensors)
    for i in left:
        taken[i] = None
    nothing = _nothing(device)
    filled = [nothing if t is None else t for t in taken]
    dtypes, counts, addresses = (tuple(map(look, filled)) for look in (_dtype_of, Tensor.numel, Tensor.data_ptr))
    return DeviceTable(taken, left, device, layout_of(device, dtypes, counts, cells), addresses_of(device, addresses))


def _left_out(tensors: Sequence[Tensor | None], cells: tuple[int, ...] | None, device: torch.device) -> list[int]:
    """The tensors that the kernels cannot take: looked for one by one only if there is one."""
    there = [t for t in tensors if t is not None]
    alike = (
        set(map(type, there)) <= _TYPES
        and set(map(_layout_of, there)) == {torch.strided}
        and set(map(_device_of, there)) == {device}
    )
    if alike and set(map(_dtype_of, there)) <= KINDS.keys() and all(map(Tensor.is_contiguous, there)) and not _transformed():
        return []
    ordered = [cells is not None and count > 1 for count in cells or [1] * len(tensors)]
    return [i for i, t in enumerate(tensors) if t is not None and not _plain(t, device, ordered[i])]


def _plain(tensor: Tensor, device: torch.device, ordered: bool) -> bool:
    """Whether the kernels take a tensor; ``ordered`` if its elements must lie in the usual order of its axes."""
    if type(tensor) not in _TYPES or tensor.layout != torch.strided or tensor.device != device or tensor.dtype not in KINDS:
        return False
    return not _transformed() and (tensor.is_contiguous() or (not ordered and _is_dense(tensor)))


def _is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill one stretch of memory, in any order of the axes."""
    filled = 1
    for stride, size in sorted((stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size != 1):
        if stride != filled:
            return tensor.numel() == 0
        filled *= size
    return True


def _transformed() -> bool:
    """Whether this runs inside ``vmap`` and the like, where a tensor has no memory of its own."""
    return torch._C._functorch.peek_interpreter_stack() is not None


@functools.cache
def _nothing(device: torch.device) -> Tensor:
    """What stands in the tables for a tensor that is not there."""
    return torch.empty(0, device=device)


@functools.cache
def _kernels(what: str) -> ModuleType:
    """The kernels for ``measuring`` or ``changing``; loaded when first needed, since Triton takes a while to load."""
    return importlib.import_module(f"gradclip.backends.triton_{what}")


@functools.cache
def _works(device: torch.device) -> bool:
    """Try once whether Triton can compile for a device and start what it compiled: it needs a C compiler for that."""
    try:
        _table([torch.ones(8, device=device)], None, device).norms(2.0)
    except Exception as error:  # whatever it is, PyTorch's operations do the same
        warnings.warn(f"gradclip goes on without its GPU kernels, since Triton failed: {error}", RuntimeWarning, stacklevel=2)
        return False
    return True


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Launch on a device. On the CPU, NumPy does the interpreting and warns of what a GPU does silently."""
    return torch.cuda.device(device) if device.type == "cuda" else np.errstate(all="ignore")
