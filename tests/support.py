"""Parameters with gradients of every kind, and the comparison with the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from gradclip import Clipping
from gradclip.torch.targets import Clippable, resolve
from tests import reference

# Half a unit in the last place for the scaling, as much again for the factor, and the sum's own error.
TOLERANCE = {
    torch.float64: 1e-14,
    torch.float32: 3e-7,
    torch.float16: 1.5e-3,
    torch.bfloat16: 1.2e-2,
    torch.complex64: 5e-7,
    torch.complex128: 1e-14,
}


def numpy_of(tensor: Tensor) -> np.ndarray:
    """The exact values in float64 (complex128), dense."""
    tensor = tensor.detach()
    tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    return tensor.to(wide).resolve_conj().numpy().copy()


def parameters(dtype: torch.dtype = torch.float32, scale: float = 1.0) -> dict[str, nn.Parameter]:
    """A small mixture of shapes: matrices, a filter, a vector, a scalar, an empty tensor, one without a gradient."""
    shapes = {"encoder.weight": (6, 5), "encoder.bias": (6,), "conv.weight": (4, 3, 2, 2), "gain": (), "none": (0, 3)}
    made = {}
    for name, shape in shapes.items():
        made[name] = nn.Parameter(torch.randn(shape, dtype=dtype))
        made[name].grad = torch.randn(shape, dtype=dtype) * scale
    made["frozen"] = nn.Parameter(torch.randn(3, dtype=dtype))
    return made


def expected(clipping: Clipping, target: Clippable, step: int = 0) -> reference.Reference:
    """What the reference says of a target's gradients as they are now, those that are there."""
    entries, found = present(target)
    grads = [numpy_of(p.grad) for p in found]
    return reference.clip(clipping, grads, [numpy_of(p) for p in found], entries=entries, step=step)


def assert_matches(target: Clippable, want: reference.Reference, least: float = 0.0) -> None:
    """Assert that a target's gradients are what the reference says, to the precision of their dtype."""
    entries, found = present(target)
    if len(found) < len(want.grads):  # what is dropped has no gradient any more; the reference says 0
        assert sum(not grad.any() and grad.size > 0 for grad in want.grads) == len(want.grads) - len(found)
        want = replace(want, grads=[grad for grad in want.grads if grad.any() or not grad.size])
    for entry, parameter, grad in zip(entries, found, want.grads, strict=True):
        rtol = max(least, TOLERANCE[parameter.dtype])
        tiny = 0.0 if parameter.dtype.is_complex else float(torch.finfo(parameter.dtype).smallest_normal) * rtol
        np.testing.assert_allclose(numpy_of(parameter.grad), grad, rtol=rtol, atol=2 * tiny, err_msg=entry.name)


def present(target: Clippable):
    """The entries and parameters that have a gradient."""
    found = resolve(target)
    pairs = [(e, p) for e, p in zip(found.entries, found.parameters, strict=True) if p.grad is not None]
    return [e for e, _ in pairs], [p for _, p in pairs]
