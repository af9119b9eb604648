"""The CPU backend: a compiled kernel that measures, scales and clamps many plain tensors at the speed of reading them.

Optional: where it was not built, or with ``GRADCLIP_KERNEL=0`` in the environment, :meth:`Cpu.take` takes nothing and
everything goes through PyTorch's own operations, with the same results, slower. It takes strided tensors of float32,
float64, bfloat16 and float16 on the CPU whose elements fill one stretch of memory.

Large work is shared by ``torch.get_num_threads()`` threads, which take one part after another until none is left: threads of
PyTorch's own OpenMP runtime, which its last operation left awake; Python threads where there is none, and after a fork, which
OpenMP threads do not survive. Every piece of a tensor has a sum of its own and these are joined in order, so the results do
not depend on the threads.
"""

from __future__ import annotations

import math
import os
from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib import import_module
from itertools import compress
from operator import is_not
from typing import Any

import torch
from torch import Tensor, nn

from gradclip.backends.backend import Backend, Factors, SparseEntries, Units
from gradclip.backends.combine import vector
from gradclip.backends.stock import Stock

__all__ = ["Cpu", "enabled"]

_kernel: Any = None
if os.environ.get("GRADCLIP_KERNEL", "1") != "0":
    with suppress(ImportError):  # not built: there was no compiler
        _kernel = import_module("gradclip.backends._kernel")

_borrowed = _kernel is not None and _kernel.borrow()
"""Whether the kernel shares work with the threads of PyTorch's OpenMP runtime."""
_TYPES = (Tensor, nn.Parameter)


def _exchange_api() -> Any:
    """DLPack's C functions, where there are any (PyTorch 2.10 and later) of a version that the kernel knows."""
    api = getattr(Tensor, "__dlpack_c_exchange_api__", None)
    if _kernel is None:
        return api
    try:
        _kernel.describe([], None, _TYPES, api)
    except (TypeError, ValueError):
        return None
    return api


_API = _exchange_api()
"""By which the kernel reads what a tensor is made of."""
_KINDS = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_ALONE = 1 << 22
"""Up to this many bytes one thread is quicker than waking another."""
_PARTS = 4
"""Parts for each thread: a thread that is held up leaves the rest to the others."""
_POWERS = (1, 2, math.inf)
"""The norms that the kernel measures."""
_HOST = torch.device("cpu")
_NOT_ONE = (1.0).__ne__
_PRESENT = partial(is_not, None)
_workers: ThreadPoolExecutor | None = None


class Cpu(Backend):
    """Tensors that the kernel takes: pieces of memory, and the cells they belong to.

    Args:
        described: what the kernel says of the tensors: pieces, slots, cells, bytes, kinds and those that it cannot take.
    """

    on_host = True

    def __init__(
        self,
        tensors: Sequence[Tensor | None],
        units: Units | None,
        sparse: Mapping[int, SparseEntries] | None,
        described: tuple[Any, int, int, int, int, list[int]],
    ) -> None:
        self.tensors, self.device, self.units, self.sparse = tensors, _HOST, units, sparse or {}
        self.pieces, self.slots, self.cells, self.bytes, self.kinds, _ = described

    @staticmethod
    def take(
        tensors: Sequence[Tensor | None], units: Units | None = None, sparse: Mapping[int, SparseEntries] | None = None
    ) -> tuple[Cpu, list[int]] | None:
        """Look at tensors once; return the backend and the positions of those that it cannot take, None without the kernel.

        Raises:
            ValueError: a tensor that cannot be cut into so many units.
        """
        if _kernel is None:
            return None
        tensors = list(tensors)
        left = [] if units is None or (units.all_contiguous and not sparse) else _without_runs(tensors, units, sparse or {})
        items = tensors if _API is not None else [_facts(t) for t in tensors]
        described = _kernel.describe(items, None if units is None else units.counts, _TYPES, _API)
        for i in described[-1]:
            tensors[i] = None
        return Cpu(tensors, units, sparse, described), left + described[-1]

    def norms(self, p: float) -> Tensor:
        """See :class:`Backend`; exact for finite elements of any size."""
        if p not in _POWERS:
            return Stock(self.tensors, _HOST, self.units, self.sparse, on_host=True).norms(p)
        slots, cells = array("d", bytes(8 * self.slots)), array("d", bytes(8 * self.cells))
        self._work(_kernel.measure, slots, p)
        _kernel.join(self.pieces, slots, cells, p)
        return vector(cells)

    def scale(self, factors: Factors, changed: Sequence[bool] | None = None) -> None:
        """See :class:`Backend`. From the last to the first: what was measured last is still in the cache."""
        if isinstance(factors, float):
            self._work(_kernel.scale, array("d", (factors,)) * self.cells)
        else:
            own = factors.contiguous().numpy() if isinstance(factors, Tensor) else array("d", factors)
            self._work(_kernel.scale, own)
            if changed is None and self.units is None:
                changed = list(map(_NOT_ONE, own))
        self._tell_autograd(changed)

    def clamp(self, low: float, high: float, which: Sequence[bool] | None = None) -> None:
        """See :class:`Backend`."""
        if low != -high and any(t is not None and t.is_neg() for t in self.tensors):  # memory that holds the other sign
            Stock(self.tensors, _HOST).clamp(low, high, which)
        elif which is None or all(which):
            self.clamp_and_measure(low, high)
        else:
            chosen = Cpu.take([t if w else None for t, w in zip(self.tensors, which, strict=True)])
            assert chosen is not None
            chosen[0].clamp_and_measure(low, high)

    def limit(self, limits: Tensor | float, p: float) -> tuple[Tensor, bool] | None:
        """See :class:`Backend`. Each cell is one thread's work, so only for cells that are many, or small."""
        if p not in _POWERS:
            return None
        own = limits.contiguous().numpy() if isinstance(limits, Tensor) else array("d", (limits,)) * self.cells
        cells = array("d", bytes(8 * self.cells))
        changed = any(self._work(_kernel.limit, own, cells, p))
        if changed:
            self._tell_autograd()
        return vector(cells), changed

    def clamp_and_measure(self, low: float, high: float) -> tuple[Tensor, bool] | None:
        """See :class:`Backend`."""
        slots, cells = array("d", bytes(8 * self.slots)), array("d", bytes(8 * self.cells))
        changed = any(self._work(_kernel.clamp, slots, low, high))
        _kernel.join(self.pieces, slots, cells, math.inf)
        if changed:
            self._tell_autograd()
        return vector(cells), changed

    def _work(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Do all of some work, on as many threads as PyTorch uses where it is large, and return what each call returned."""
        threads = torch.get_num_threads() if self.bytes > _ALONE else 1
        if threads == 1 or _borrowed:
            return [function(self.pieces, *arguments, 0, 1, threads)]
        return _shared(partial(function, self.pieces, *arguments), threads)

    def _tell_autograd(self, changed: Sequence[bool] | None = None) -> None:
        """Count an in-place change of these tensors, by default all."""
        tensors = self.tensors if changed is None else compress(self.tensors, changed)
        torch.autograd.graph.increment_version(list(filter(_PRESENT, tensors)))  # type: ignore[arg-type]


def reshaped(tensors: Sequence[Tensor | None], shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Return which tensors do not have these shapes; quick enough to ask at every step. None has any shape."""
    tensors, shapes = list(tensors), tuple(shapes)
    suspects: Sequence[int] = range(len(tensors))
    if _kernel is not None and _API is not None and not torch.compiler.is_compiling():
        suspects = _kernel.reshaped(tensors, shapes, _TYPES, _API)  # and those that it cannot read
    if not suspects:
        return []
    return [i for i in suspects if tuple(getattr(tensors[i], "shape", shapes[i])) != shapes[i]]  # and None has no shape


def enabled() -> bool:
    """Whether the kernel was built and is not switched off."""
    return _kernel is not None


def _without_runs(tensors: list[Tensor | None], units: Units, sparse: Mapping[int, SparseEntries]) -> list[int]:
    """Take out of a list, and return the positions of, the tensors whose units are no runs of their elements."""
    left = [i for i, t in enumerate(tensors) if t is not None and (units.views[i][1] != 1 or i in sparse)]
    for i in left:
        tensors[i] = None
    return left


def _facts(tensor: Tensor | None) -> tuple[int, int, int] | bool | None:
    """What the exchange API would tell: (address, count, kind), or False for a tensor that the kernel cannot take."""
    if tensor is None:
        return None
    plain = type(tensor) in _TYPES and tensor.layout == torch.strided and tensor.device.type == "cpu" and tensor.is_contiguous()
    if not plain or tensor.dtype not in _KINDS or tensor.data_ptr() % tensor.element_size():
        return False
    return tensor.data_ptr(), tensor.numel(), _KINDS[tensor.dtype]


def _shared(work: Callable[[int, int, int], Any], threads: int) -> list[Any]:
    """Do some work on threads of our own; ``work(part, parts, threads)`` does one of equal parts."""
    parts = _PARTS * threads
    todo, done = deque(range(parts)), []

    def take() -> None:
        while todo:
            try:
                part = todo.popleft()
            except IndexError:  # another thread was quicker
                return
            done.append(work(part, parts, 1))

    others = _call(take, threads - 1)
    take()
    for other in others:
        if not other.cancel():
            other.result()
    return done


def _call(work: Callable[[], None], times: int) -> list[Any]:
    """Start some work on other threads; on none while the interpreter shuts down."""
    global _workers  # noqa: PLW0603
    if _workers is None:
        _workers = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="gradclip")
    try:
        return [_workers.submit(work) for _ in range(times)]
    except RuntimeError:
        return []


def _forget_workers() -> None:
    """Threads do not survive a fork."""
    global _workers, _borrowed
    _workers, _borrowed = None, False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)
