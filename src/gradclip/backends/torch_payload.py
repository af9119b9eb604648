"""What is measured and scaled of a gradient: its strided values, wherever they are kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradclip.errors import TargetError

__all__ = ["Payload", "payload_of"]


@dataclass(frozen=True)
class Payload:
    """The values of one gradient (None where there is none), and for a sparse one where each of them belongs."""

    values: Tensor | None
    shape: torch.Size
    indices: Tensor | None = None

    @property
    def rows(self) -> Tensor | None:
        """The row (index along the first axis) of each stored entry of a sparse gradient."""
        return None if self.indices is None else self.indices[0]

    def dense(self) -> Tensor:
        """Return the values in the gradient's own shape, zeros where nothing is stored."""
        if self.values is None:
            return torch.zeros(self.shape)
        if self.indices is None:
            return self.values
        stored = torch.sparse_coo_tensor(self.indices, self.values, self.shape, is_coalesced=True, check_invariants=False)
        return stored.to_dense()


def payload_of(grad: Tensor | None, shape: torch.Size, name: str) -> tuple[Payload, Tensor | None]:
    """Return what to work on, and a gradient to put in place of ``grad`` where it cannot be worked on as it is.

    Repeated rows of a sparse gradient are merged (the norm of the merged rows is the right one); a gradient whose elements
    share memory, as ``expand`` makes them, is copied. Neither changes its value.

    Raises:
        TargetError: a layout that is neither strided nor sparse COO, a distributed tensor, or integers.
    """
    if grad is None:
        return Payload(None, shape), None
    if hasattr(grad, "device_mesh"):
        raise TargetError(f"the gradient of {name!r} is a DTensor: use torch.nn.utils.clip_grad_norm_ for a sharded model")
    if not (grad.dtype.is_floating_point or grad.dtype.is_complex):
        raise TargetError(f"the gradient of {name!r} has dtype {grad.dtype}: only floating and complex can be clipped")
    if grad.layout == torch.sparse_coo:
        merged = grad if grad.is_coalesced() else grad.coalesce()
        return Payload(merged._values(), grad.shape, merged._indices()), None if merged is grad else merged
    if grad.layout != torch.strided:
        raise TargetError(f"the gradient of {name!r} has layout {grad.layout}: convert it with .to_dense() first")
    if any(stride == 0 and size > 1 for stride, size in zip(grad.stride(), grad.shape, strict=True)):
        own = grad.clone(memory_format=torch.contiguous_format)
        return Payload(own, grad.shape), own
    return Payload(grad, grad.shape), None
