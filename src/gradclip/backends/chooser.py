"""Choose the backend of a list of tensors: the one place that asks what kind of tensors they are and where they lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from gradclip.backends import gpu
from gradclip.backends.backend import Backend, SparseEntries, Units
from gradclip.backends.compiled import Compiled
from gradclip.backends.cpu import Cpu
from gradclip.backends.functional import transforming
from gradclip.backends.mesh import Mesh
from gradclip.backends.mixed import Mixed
from gradclip.backends.shards import Shards
from gradclip.backends.stock import Stock
from gradclip.backends.stock_norms import wide_dtype
from gradclip.errors import TargetError

__all__ = ["KERNELS", "choose", "choose_sharded", "norms_of_each", "rescaled", "take_all"]

Take: TypeAlias = Callable[
    [Sequence[Tensor | None], Units | None, Mapping[int, SparseEntries] | None], tuple[Backend, list[int]] | None
]

KERNELS: list[Take] = [gpu.Gpu.take, Cpu.take] if gpu.PRESENT else [Cpu.take]
"""What is tried before stock operations, in order; each returns a backend and the positions of what it cannot take."""


def take_all(tensors: Sequence[Tensor | None], units: Units | None = None) -> Backend | None:
    """Return a backend that takes plain tensors all by itself, None where there is no such."""
    if torch.compiler.is_compiling():
        return _while_compiling(tensors, units)
    for take in KERNELS:
        found = take(tensors, units, None)
        if found is not None and not found[1]:
            return found[0]
    return None


def choose(
    tensors: Sequence[Tensor | None], units: Units | None = None, sparse: Mapping[int, SparseEntries] | None = None
) -> Backend:
    """Return the backend for strided tensors, and the stored values of sparse ones, of any kind.

    Raises:
        TargetError: inside a transform of ``torch.func``, where nothing can be changed in place, and no number read.
    """
    if transforming():
        raise TargetError(
            "inside vmap, grad and other transforms of torch.func gradients can neither be changed in place nor read as "
            "numbers: use gradclip.clip(grads, ...), which returns new ones"
        )
    compiling = torch.compiler.is_compiling()
    rest, parts = list(range(len(tensors))), []
    for take in [] if compiling else KERNELS:
        own, own_units, own_sparse = _some(tensors, units, sparse or {}, rest)
        found = take(own, own_units, own_sparse)
        if found is None:
            continue
        backend, left = found
        if len(left) == len([t for t in own if t is not None]):
            continue  # it can take nothing
        left_over = set(left)
        kept = [i for i in range(len(rest)) if i not in left_over]
        if left_over:
            found = take(*_some(own, own_units, own_sparse, kept))
            assert found is not None
            backend = found[0]
        parts.append((backend, [rest[i] for i in kept]))
        rest = [rest[i] for i in left]
        if not rest:
            break
    if rest or not parts:
        own, own_units, own_sparse = _some(tensors, units, sparse or {}, rest)
        device = next((t.device for t in own if t is not None), torch.device("cpu"))
        on_host = device.type == "cpu" and not compiling
        parts.append((Stock(own, device, own_units, own_sparse, on_host), rest))
    return parts[0][0] if len(parts) == 1 else Mixed(tensors, units, sparse, parts)


def choose_sharded(
    tensors: Sequence[Tensor | None], units: Units | None, shards: Shards, sparse: Mapping[int, SparseEntries] | None = None
) -> Backend:
    """Return the backend for tensors of which this rank has these parts."""
    local_units = None if units is None else shards.local_units(units)[0]
    local = None if sparse else take_all(tensors, local_units)
    return Mesh(local or choose(tensors, local_units, sparse), shards, units)


def norms_of_each(tensors: Sequence[Tensor | None], p: float) -> Tensor:
    """Return the p-norm of each of some strided tensors as one float64 vector, where the first of them lies."""
    return (take_all(tensors) or choose(tensors)).norms(p)


def rescaled(backend: Backend, factor: float) -> Backend:
    """Return a backend for copies in float64, multiplied by a power of two, whose norms are within float64."""
    if isinstance(backend, Mesh):
        return backend.changed(lambda local: rescaled(local, factor))
    copies = [None if t is None else t.to(wide_dtype(t, torch.float64)) * factor for t in backend.tensors]
    return choose(copies, backend.units, backend.sparse)


def _some(
    tensors: Sequence[Tensor | None], units: Units | None, sparse: Mapping[int, SparseEntries], positions: Sequence[int]
) -> tuple[Sequence[Tensor | None], Units | None, Mapping[int, SparseEntries]]:
    if len(positions) == len(tensors):
        return tensors, units, sparse
    own_sparse = {at: sparse[i] for at, i in enumerate(positions) if i in sparse}
    return [tensors[i] for i in positions], None if units is None else units.of(positions), own_sparse


def _while_compiling(tensors: Sequence[Tensor | None], units: Units | None) -> Backend | None:
    """A compiler that traces sees operations that it does not look into, where all tensors are such as kernels take."""
    there = [t for t in tensors if t is not None]
    if (
        units is None
        and there
        and len(there) == len(tensors)
        and all(gpu.on_device(t) and t.dtype in gpu.DTYPES for t in there)
    ):
        return Compiled(there, there[0].device)
    return None
