"""What a compiler sees of the kernels: measuring, scaling and clamping lists of tensors as operations it does not look into.

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

from gradclip.backends.backend import Backend, Factors
from gradclip.backends.gpu import Gpu
from gradclip.backends.stock import Stock

__all__ = ["Compiled", "clamp_", "norms", "scale_"]


class Compiled(Backend):
    """Tensors that the GPU kernels take, none missing, while a compiler traces."""

    def norms(self, p: float) -> Tensor:
        """See :class:`Backend`."""
        return norms(self._all(), p)

    def scale(self, factors: Factors, changed: Sequence[bool] | None = None) -> None:
        """See :class:`Backend`."""
        tensors = self._all()
        if isinstance(factors, float):
            factors = [factors] * len(tensors)
        own = factors if isinstance(factors, Tensor) else torch.tensor(factors, dtype=torch.float64, device=self.device)
        scale_(tensors, own)

    def clamp(self, low: float, high: float, which: Sequence[bool] | None = None) -> None:
        """See :class:`Backend`."""
        chosen = [t for i, t in enumerate(self._all()) if which is None or which[i]]
        if chosen:
            clamp_(chosen, low, high)

    def _all(self) -> list[Tensor]:
        return [t for t in self.tensors if t is not None]


@torch.library.custom_op("gradclip::norms", mutates_args=(), schema="(Tensor[] tensors, float p) -> Tensor")
def norms(tensors: Sequence[Tensor], p: float) -> Tensor:
    """Return the p-norm of each of some tensors of one device, as a vector of float64 there."""
    return _eager(tensors).norms(p)


@norms.register_fake
def _(tensors: Sequence[Tensor], p: float) -> Tensor:
    return tensors[0].new_empty(len(tensors), dtype=torch.float64)


@torch.library.custom_op("gradclip::scale_", mutates_args=("tensors",), schema="(Tensor(a!)[] tensors, Tensor factors) -> ()")
def scale_(tensors: Sequence[Tensor], factors: Tensor) -> None:
    """Multiply each tensor by its factor, in place."""
    _eager(tensors).scale(factors)


@torch.library.custom_op(
    "gradclip::clamp_", mutates_args=("tensors",), schema="(Tensor(a!)[] tensors, float low, float high) -> ()"
)
def clamp_(tensors: Sequence[Tensor], low: float, high: float) -> None:
    """Clamp every element to [low, high], in place."""
    _eager(tensors).clamp(low, high)


@scale_.register_fake
@clamp_.register_fake
def _(tensors: Sequence[Tensor], *_: object) -> None:
    """Change tensors, and make none."""


def _eager(tensors: Sequence[Tensor]) -> Backend:
    """The backend that runs inside an operation."""
    found = Gpu.take(tensors)
    return Stock(tensors, tensors[0].device) if found is None or found[1] else found[0]
