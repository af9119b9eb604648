"""What is measured and scaled of a gradient: its strided values, wherever they are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import torch
from torch import Tensor

from gradclip.backends.kernel import Table
from gradclip.backends.torch_triton import DeviceTable
from gradclip.errors import TargetError

__all__ = ["DevicePayloads", "Payload", "Payloads", "PlainPayloads", "payload_of", "values_of"]


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


class Payloads(Sequence[Payload]):
    """The payloads of plain gradients, each the gradient itself: made only where somebody looks at them one by one."""

    def __init__(self, values: Sequence[Tensor | None], shapes: Sequence[tuple[int, ...]]) -> None:
        self.values = values
        """The gradients."""
        self._shapes = shapes

    @cached_property
    def _made(self) -> list[Payload]:
        return [Payload(v, torch.Size(shape)) for v, shape in zip(self.values, self._shapes, strict=True)]

    @overload
    def __getitem__(self, at: int) -> Payload: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Payload]: ...
    def __getitem__(self, at: int | slice) -> Payload | Sequence[Payload]:
        return self._made[at]

    def __iter__(self) -> Iterator[Payload]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self.values)


class PlainPayloads(Payloads):
    """Gradients on the CPU, every one of which the compiled kernel can take."""

    def __init__(self, table: Table, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__(table.tensors, shapes)
        self.table = table
        """The kernel's view of them."""


class DevicePayloads(Payloads):
    """Gradients on one GPU, every one of which the kernels there can take."""

    def __init__(self, table: DeviceTable, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__(table.tensors, shapes)
        self.table = table
        """The kernels' view of them."""


def values_of(payloads: Sequence[Payload]) -> Sequence[Tensor | None]:
    """Return the values of each payload."""
    return payloads.values if isinstance(payloads, Payloads) else [payload.values for payload in payloads]


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
