"""The compiled kernel: norms, scaling and clamping of many plain CPU tensors at the speed of reading them.

Optional: where it was not built, or with ``GRADCLIP_KERNEL=0`` in the environment, :func:`describe` returns None and
everything goes through PyTorch's own operations, with the same results, slower. It takes strided tensors of float32,
float64, bfloat16 and float16 on the CPU whose elements fill one stretch of memory; the caller looks after the others.

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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Table", "describe", "enabled", "reshaped", "takes"]

_kernel: Any = None
if os.environ.get("GRADCLIP_KERNEL", "1") != "0":
    with suppress(ImportError):  # not built: there was no compiler
        from gradclip.backends import _kernel  # type: ignore[attr-defined, no-redef]

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
_workers: ThreadPoolExecutor | None = None


class Table(NamedTuple):
    """Tensors as the kernel sees them: pieces of memory, and the cells (tensors, or units of one) they belong to."""

    tensors: Sequence[Tensor | None]
    """What the pieces point into; kept alive here."""
    pieces: Any
    """What the kernel alone can read, so that it works on no memory but theirs."""
    slots: int
    cells: int
    bytes: int
    kinds: int
    left_out: Sequence[int]
    """The tensors that the kernel cannot take; their cells measure 0 and are never changed."""

    @property
    def has_float64(self) -> bool:
        """Whether any tensor is float64."""
        return bool(self.kinds & 1 << _KINDS[torch.float64])

    def norms(self, p: float) -> array[float]:
        """Return the p-norm of every cell, for p of 1, 2 and inf; exact for finite elements of any size."""
        slots, cells = array("d", bytes(8 * self.slots)), array("d", bytes(8 * self.cells))
        _share(self.bytes, lambda *part: _kernel.measure(self.pieces, slots, p, *part))
        _kernel.join(self.pieces, slots, cells, p)
        return cells

    def scale(self, factors: Any) -> None:
        """Multiply every cell by its factor (an array of doubles), in place.

        From the last to the first: what was measured last is still in the cache.
        """
        _share(self.bytes, lambda *part: _kernel.scale(self.pieces, factors, *part))
        self._changed()

    def limit(self, limits: Any, p: float) -> tuple[array[float], bool]:
        """Bring every cell down to its limit (an array of doubles), in place, as soon as it is measured, still in the cache.

        Each cell is one thread's work: for cells that are many, or small.

        Returns:
            The p-norm of every cell before, and whether any was above its limit.
        """
        cells = array("d", bytes(8 * self.cells))
        changed = any(_share(self.bytes, lambda *part: _kernel.limit(self.pieces, limits, cells, p, *part)))
        if changed:
            self._changed()
        return cells, changed

    def clamp(self, low: float, high: float) -> tuple[array[float], bool]:
        """Clamp every element to [low, high], in place; return each cell's largest size before, and whether any was outside.

        For tables whose cells are tensors.
        """
        slots, cells = array("d", bytes(8 * self.slots)), array("d", bytes(8 * self.cells))
        outside = any(_share(self.bytes, lambda *part: _kernel.clamp(self.pieces, slots, low, high, *part)))
        _kernel.join(self.pieces, slots, cells, math.inf)
        if outside:
            self._changed()
        return cells, outside

    def _changed(self) -> None:
        """Tell autograd, as an in-place operation would."""
        torch.autograd.graph.increment_version([t for t in self.tensors if t is not None])


def enabled() -> bool:
    """Whether the kernel was built and is not switched off."""
    return _kernel is not None


def takes(p: float) -> bool:
    """Whether the kernel measures this norm."""
    return p in (1, 2, math.inf)


def describe(tensors: Sequence[Tensor | None], cells: Sequence[int] | None = None) -> Table | None:
    """Look at tensors once, so that the kernel can work on them; None without the kernel, or while a compiler traces.

    Args:
        tensors: None has cells that measure 0.
        cells: into how many runs of equal length each tensor is cut; by default each is one cell.

    Raises:
        ValueError: a tensor that cannot be cut into so many.
    """
    if _kernel is None or torch.compiler.is_compiling():
        return None
    tensors = list(tensors)
    items = tensors if _API is not None else [_facts(t) for t in tensors]
    return Table(tensors, *_kernel.describe(items, None if cells is None else tuple(cells), _TYPES, _API))


def reshaped(tensors: Sequence[Tensor | None], shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Return which tensors do not have these shapes; quick enough to ask at every step. None has any shape."""
    tensors, shapes = list(tensors), tuple(shapes)
    suspects: Sequence[int] = range(len(tensors))
    if _kernel is not None and _API is not None and not torch.compiler.is_compiling():
        suspects = _kernel.reshaped(tensors, shapes, _TYPES, _API)  # and those that it cannot read
    return [i for i in suspects if (t := tensors[i]) is not None and tuple(t.shape) != shapes[i]]


def _facts(tensor: Tensor | None) -> tuple[int, int, int] | bool | None:
    """What the exchange API would tell: (address, count, kind), or False for a tensor that the kernel cannot take."""
    if tensor is None:
        return None
    plain = type(tensor) in _TYPES and tensor.layout == torch.strided and tensor.device.type == "cpu" and tensor.is_contiguous()
    if not plain or tensor.dtype not in _KINDS or tensor.data_ptr() % tensor.element_size():
        return False
    return tensor.data_ptr(), tensor.numel(), _KINDS[tensor.dtype]


def _share(size: int, work: Callable[[int, int, int], Any]) -> list[Any]:
    """Do all of some work, on as many threads as PyTorch uses where it is large, and return what each call returned.

    ``work(part, parts, threads)`` does one of equal parts on threads that it starts itself.
    """
    threads = torch.get_num_threads() if size > _ALONE else 1
    if threads == 1 or _borrowed:
        return [work(0, 1, threads)]
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
