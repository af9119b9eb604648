"""What a compiler sees of the backend: measuring, scaling and clamping lists of tensors as operations it does not look into.

``torch.library.custom_op`` rather than ``triton_op``: the kernels go by tables of addresses that are made on the host, and a
tensor that is being traced has no address. Inside an opaque operation everything runs as it does outside ``torch.compile``,
tables and their reuse included; the compiler knows from the schema which tensors change and from the fake implementation what
comes back, and fuses the arithmetic between them. Outside ``torch.compile`` nothing goes through these operations: passing
thousands of tensors to one costs more than the kernels do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradclip.backends import torch_eager
from gradclip.backends.torch_norms import norms_of
from gradclip.backends.torch_payload import Payload

__all__ = ["clamp_", "norms", "scale_"]


@torch.library.custom_op("gradclip::norms", mutates_args=(), schema="(Tensor[] tensors, float p) -> Tensor")
def norms(tensors: Sequence[Tensor], p: float) -> Tensor:
    """Return the p-norm of each of some tensors of one device, as a vector of float64 there."""
    return norms_of(tensors, p, tensors[0].device)


@norms.register_fake
def _(tensors: Sequence[Tensor], p: float) -> Tensor:
    return tensors[0].new_empty(len(tensors), dtype=torch.float64)


@torch.library.custom_op("gradclip::scale_", mutates_args=("tensors",), schema="(Tensor(a!)[] tensors, Tensor factors) -> ()")
def scale_(tensors: Sequence[Tensor], factors: Tensor) -> None:
    """Multiply each tensor by its factor, in place."""
    torch_eager.scale_tensors(_payloads(tensors), factors)


@torch.library.custom_op(
    "gradclip::clamp_", mutates_args=("tensors",), schema="(Tensor(a!)[] tensors, float low, float high) -> ()"
)
def clamp_(tensors: Sequence[Tensor], low: float, high: float) -> None:
    """Clamp every element to [low, high], in place."""
    torch_eager.clamp(_payloads(tensors), low, high)


@scale_.register_fake
@clamp_.register_fake
def _(tensors: Sequence[Tensor], *_: object) -> None:
    """Change tensors, and make none."""


def _payloads(tensors: Sequence[Tensor]) -> list[Payload]:
    return [Payload(t, t.shape) for t in tensors]
