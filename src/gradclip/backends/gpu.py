"""The GPU backend: norms, scaling and clamping of a list of tensors in one launch each, whatever their number.

Optional, as the compiled kernel is: without Triton, with ``GRADCLIP_KERNEL=0`` in the environment, or where Triton finds
nothing to compile with, :meth:`Gpu.take` takes nothing and everything goes through PyTorch's own operations. It takes strided
tensors of float32, bfloat16 and float16 on one GPU whose elements fill one stretch of memory.

Nothing is read back from the device: a result is a tensor there, in float64. Under ``TRITON_INTERPRET=1`` Triton runs kernels
in Python on the CPU, and this backend takes CPU tensors: that is how it is tested without a GPU.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from operator import attrgetter
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from gradclip.backends.backend import Backend, Factors, SparseEntries, Units
from gradclip.backends.chunks import KINDS, TILE, Layout, addresses_of, capturing, layout_of, send
from gradclip.backends.combine import combine
from gradclip.backends.stock import Stock

__all__ = ["DTYPES", "PRESENT", "Gpu", "on_device"]

_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_TRITON = os.environ.get("GRADCLIP_KERNEL", "1") != "0" and importlib.util.find_spec("triton") is not None
PRESENT = _TRITON and (_INTERPRETED or torch.version.cuda is not None or torch.version.hip is not None)
"""Whether there can be tensors that this backend takes, in this build of PyTorch."""
DTYPES = tuple(KINDS)
"""What the kernels take."""
_SOME = 1 << 16
"""Up to this many norms, one program combines them quicker than PyTorch's operations are started."""
_TYPES = {Tensor, nn.Parameter}
_POWERS = {1.0: 1, 2.0: 2, math.inf: 0}
_dtype_of, _layout_of, _device_of = attrgetter("dtype"), attrgetter("layout"), attrgetter("device")
_JOINED = 1024
"""Parts of a cell, or cells, that the one program that joins them looks at together."""
_LAUNCH = {"num_warps": 8, "enable_fp_fusion": True}
"""256 threads look at 16 elements each; fused multiply-adds as in PyTorch, whatever a version of Triton has as its default."""


class Gpu(Backend):
    """Tensors on one device that the kernels take."""

    def __init__(
        self,
        tensors: Sequence[Tensor | None],
        device: torch.device,
        units: Units | None,
        sparse: Mapping[int, SparseEntries] | None,
    ) -> None:
        super().__init__(tensors, device, units, sparse)
        self.on_host = device.type == "cpu"  # under Triton's interpreter
        nothing = _nothing(device)
        filled = [nothing if t is None else t for t in tensors]
        dtypes, counts, addresses = (tuple(map(look, filled)) for look in (_dtype_of, Tensor.numel, Tensor.data_ptr))
        self.layout: Layout = layout_of(device, dtypes, counts, None if units is None else units.counts)
        self.addresses = addresses_of(device, addresses)

    @staticmethod
    def take(
        tensors: Sequence[Tensor | None], units: Units | None = None, sparse: Mapping[int, SparseEntries] | None = None
    ) -> tuple[Gpu, list[int]] | None:
        """Look at tensors once; return the backend and the positions of those that it cannot take, None if that is all."""
        first = next((t for t in tensors if t is not None), None)
        if first is None or not on_device(first) or not (capturing(first.device) or _works(first.device)):
            return None
        left = _left_out(tensors, units, sparse or {}, first.device)
        taken = list(tensors)
        for i in left:
            taken[i] = None
        return Gpu(taken, first.device, units, sparse), left

    def norms(self, p: float) -> Tensor:
        """See :class:`Backend`; exact for finite elements of any size."""
        if p not in _POWERS:
            return Stock(self.tensors, self.device, self.units, self.sparse).norms(p)
        kernels, power = _kernels("measuring"), _POWERS[p]
        out = torch.empty(self.layout.slots, dtype=torch.float64, device=self.device)
        with _on(self.device):
            for width, lines, table in self.layout.tables():
                if width:
                    kernels.measure[(lines,)](table, self.addresses, out, self.layout.cells, P=power, **self._shape(width))
                else:
                    kernels.join[(lines,)](table, out, P=power, TILE=_JOINED, **_LAUNCH)
        return out[: self.layout.cells]

    def scale(self, factors: Factors, changed: Sequence[bool] | None = None) -> None:
        """See :class:`Backend`; numbers of the host are sent without waiting."""
        if isinstance(factors, float):
            factors = [factors]
        own = factors.to(self.device, torch.float64) if isinstance(factors, Tensor) else self._sent(factors)
        step = own.stride(0) if own.numel() > 1 else 0
        with _on(self.device):
            for width, lines, table in self.layout.tables():
                if width:
                    _kernels("changing").scale[(lines,)](table, self.addresses, own, step, **self._shape(width))
        self._changed()

    def clamp(self, low: float, high: float, which: Sequence[bool] | None = None) -> None:
        """See :class:`Backend`."""
        if low != -high and any(t is not None and t.is_neg() for t in self.tensors):  # memory that holds the other sign
            Stock(self.tensors, self.device).clamp(low, high, which)
            return
        chosen = self._only(which)
        chosen._clamp(low, high, write=True)
        chosen._changed()

    def outside(self, low: float, high: float, which: Sequence[bool] | None = None) -> Tensor:
        """See :class:`Backend`."""
        if any(t is not None and t.is_neg() for t in self.tensors):
            return super().outside(low, high, which)
        return self._only(which)._clamp(low, high, write=False)

    def total(self, norms: Tensor, p: float) -> Tensor:
        """See :class:`Backend`."""
        if p not in _POWERS or not 0 < norms.numel() <= _SOME:
            return combine(norms, p, None, 1).reshape(())
        return self.conclude(norms, p, math.inf, norms.dtype)[0]

    def conclude(self, norms: Tensor, p: float, limit: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`Backend`; in one launch."""
        if p not in _POWERS:
            return super().conclude(norms, p, limit, dtype)
        out = torch.empty(2, dtype=torch.float64, device=norms.device)
        returned = torch.empty((), dtype=dtype, device=norms.device)
        near = float(np.float32(limit)) if abs(limit) < 1e38 else limit  # a kernel is handed float32
        rest = limit - near if math.isfinite(limit) else 0.0
        with _on(norms.device):
            _kernels("measuring").conclude[(1,)](
                norms.contiguous(), out, returned, norms.numel(), near, rest, P=_POWERS[p], TILE=_JOINED, **_LAUNCH
            )  # fmt: skip
        return out[0], out[1], returned

    def _only(self, which: Sequence[bool] | None) -> Gpu:
        """The same for some of the tensors."""
        if which is None or all(which):
            return self
        return Gpu([t if w else None for t, w in zip(self.tensors, which, strict=True)], self.device, None, None)

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


def on_device(tensor: Tensor) -> bool:
    """Whether a tensor is on a device that this backend is for."""
    return PRESENT and (tensor.is_cuda or (_INTERPRETED and tensor.device.type == "cpu"))


def _left_out(
    tensors: Sequence[Tensor | None], units: Units | None, sparse: Mapping[int, SparseEntries], device: torch.device
) -> list[int]:
    """The tensors that the kernels cannot take: looked for one by one only if there is one."""
    there = [t for t in tensors if t is not None]
    alike = (
        set(map(type, there)) <= _TYPES
        and set(map(_layout_of, there)) == {torch.strided}
        and set(map(_device_of, there)) == {device}
    )
    simple = units is None or (units.all_contiguous and not sparse)
    if (
        alike
        and simple
        and set(map(_dtype_of, there)) <= KINDS.keys()
        and all(map(Tensor.is_contiguous, there))
        and not _transformed()
    ):
        return []
    several = [False] * len(tensors) if units is None else [count > 1 for count in units.counts]
    no_runs = [units is not None and (units.views[i][1] != 1 or i in sparse) for i in range(len(tensors))]
    return [i for i, t in enumerate(tensors) if t is not None and (no_runs[i] or not _plain(t, device, several[i]))]


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
        Gpu([torch.ones(8, device=device)], device, None, None).norms(2.0)
    except Exception as error:  # whatever it is, PyTorch's operations do the same
        warnings.warn(f"gradclip goes on without its GPU kernels, since Triton failed: {error}", RuntimeWarning, stacklevel=2)
        return False
    return True


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Launch on a device. On the CPU, NumPy does the interpreting and warns of what a GPU does silently."""
    return torch.cuda.device(device) if device.type == "cuda" else np.errstate(all="ignore")
