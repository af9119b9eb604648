"""What of a gradient is measured and scaled: its strided values, wherever they are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gradclip.backends.backend import SparseEntries
from gradclip.errors import TargetError

__all__ = ["prepared", "values_of"]


def prepared(
    grads: Sequence[Tensor | None], names: Sequence[str], put: Callable[[int, Tensor | None], None]
) -> tuple[list[Tensor | None], dict[int, SparseEntries]]:
    """Return what is worked on of each gradient, once all of them have been found to be such as can be clipped.

    Repeated rows of a sparse gradient are merged (the norm of the merged rows is the right one); a gradient whose elements
    share memory, as ``expand`` makes them, is copied. Neither changes its value.

    Args:
        grads: None where there is none.
        names: of the parameters, for messages.
        put: ``put(i, grad)`` puts another tensor in place of gradient i.

    Returns:
        Strided tensors, and where the values of the sparse ones belong.

    Raises:
        TargetError: a layout that is neither strided nor sparse COO, a distributed tensor, or integers.
    """
    replaced = [(g, g) if g is None else _workable(g, name) for g, name in zip(grads, names, strict=True)]
    values: list[Tensor | None] = []
    sparse: dict[int, SparseEntries] = {}
    for i, (kept, new) in enumerate(replaced):
        if new is not None:
            put(i, new)
        if kept is not None and kept.layout == torch.sparse_coo:
            sparse[i] = SparseEntries(kept._indices(), kept.shape)
            values.append(kept._values())
        else:
            values.append(kept)
    return values, sparse


def values_of(grad: Tensor) -> Tensor:
    """Return the strided values of one gradient, to look at; nothing is put in its place."""
    kept, _ = _workable(grad, "")
    return kept._values() if kept.layout == torch.sparse_coo else kept


def _workable(grad: Tensor, name: str) -> tuple[Tensor, Tensor | None]:
    """Return the tensor to work on, and the same again where it has to be put in place of the gradient."""
    if hasattr(grad, "device_mesh"):
        raise TargetError(f"the gradient of {name!r} is a DTensor, and its parameter is not: make both DTensors, or neither")
    if not (grad.dtype.is_floating_point or grad.dtype.is_complex):
        raise TargetError(f"the gradient of {name!r} has dtype {grad.dtype}: only floating and complex can be clipped")
    if grad.layout == torch.sparse_coo:
        merged = grad if grad.is_coalesced() else grad.coalesce()
        return merged, None if merged is grad else merged
    if grad.layout != torch.strided:
        raise TargetError(f"the gradient of {name!r} has layout {grad.layout}: convert it with .to_dense() first")
    if any(stride == 0 and size > 1 for stride, size in zip(grad.stride(), grad.shape, strict=True)):
        own = grad.clone(memory_format=torch.contiguous_format)
        return own, own
    return grad, None
