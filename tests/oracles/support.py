"""What the oracle tests share: the same gradients for everyone, and comparisons of what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import utils

import gradclip
import gradclip.torch

SHAPES = ((6, 5), (6,), (4, 3, 2, 2), (), (7,))
"""A matrix, a bias, a filter, a scalar, a vector."""


def sample(seed: int = 0, scale: float = 1.0, shapes: Sequence[tuple[int, ...]] = SHAPES) -> list[np.ndarray]:
    """Return float64 arrays whose values are exact in float32, so that every framework starts from the same numbers."""
    random = np.random.default_rng(seed)
    return [np.asarray(scale * random.standard_normal(shape)).astype(np.float32).astype(np.float64) for shape in shapes]


def parameters_of(grads: Iterable[Any], dtype: torch.dtype | None = None) -> list[nn.Parameter]:
    """Return parameters of zeros that have these gradients; None is a parameter without one."""
    made = []
    for grad in grads:
        values = None if grad is None else grad.clone() if isinstance(grad, Tensor) else torch.tensor(grad)
        values = values if values is None or dtype is None else values.to(dtype)
        parameter = nn.Parameter(torch.zeros(1) if values is None else torch.zeros_like(values))
        parameter.grad = values
        made.append(parameter)
    return made


def clipped(grads: Sequence[Any], clipping: str | gradclip.Clipping, weights: Sequence[Any] | None = None) -> Any:
    """Return what gradclip makes of these arrays, as nested lists; their dtype decides the precision."""
    params = None if weights is None else [torch.tensor(w) for w in weights]
    return plain(gradclip.clip([torch.tensor(g) for g in grads], clipping, params=params))


def plain(value: Any) -> Any:
    """Return arrays and tensors of any framework as numbers in nested lists."""
    if isinstance(value, Tensor):
        return value.detach().resolve_conj().tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, str)):
        return value
    array = np.asarray(value)
    wide = {np.dtype(np.longdouble): np.float64, np.dtype(np.clongdouble): np.complex128}
    return array.astype(wide.get(array.dtype, array.dtype)).tolist()


def result_of(call: Callable[[], Any]) -> Any:
    """Return what a call returns as plain numbers, or the type of the error it raises."""
    try:
        return plain(call())
    except Exception as error:
        return type(error)


def assert_result(got: Any, want: Any, rtol: float = 1e-6, path: str = "result") -> None:
    """Assert that two nested lists of numbers, or two types of errors, are the same; a NaN equals a NaN."""
    if isinstance(want, list):
        assert isinstance(got, list), f"{path}: {got!r} is not {want!r}"
        assert len(got) == len(want), f"{path}: {len(got)} items, not {len(want)}"
        for i, (one, other) in enumerate(zip(got, want, strict=True)):
            assert_result(one, other, rtol, f"{path}[{i}]")
    elif isinstance(want, (float, int, complex)) and not isinstance(want, bool):
        assert isinstance(got, (float, int, complex)), f"{path}: {got!r} is not the number {want!r}"
        assert _same_number(complex(got), complex(want), rtol), f"{path}: {got!r} is not {want!r} (rtol {rtol:g})"
    else:
        assert got == want, f"{path}: {got!r} is not {want!r}"


def assert_same_as_torch(grads: Sequence[Any], call: Callable[[Any, list[nn.Parameter]], Any], rtol: float = 2e-6) -> Any:
    """Assert that a call on (module, parameters) returns or raises, and leaves behind, the same for torch and gradclip."""
    found = []
    for module in (utils, gradclip.torch):
        parameters = parameters_of(grads)
        returned = result_of(lambda m=module, p=parameters: call(m, p))
        found.append([returned, plain([p.grad for p in parameters])])
    assert_result(found[1], found[0], rtol)
    return found[1]


def _same_number(got: complex, want: complex, rtol: float) -> bool:
    """Compare the parts, each to ``rtol`` of the whole; NaN equals NaN, and an Inf only itself."""
    slack = rtol * abs(want) if np.isfinite(want) else 0.0
    pairs = ((got.real, want.real), (got.imag, want.imag))
    return all(a == b or (a != a and b != b) or abs(a - b) <= slack for a, b in pairs)


@dataclass(frozen=True)
class Difference:
    """A case in which gradclip means to differ from another library: what either does, as plain numbers or an error."""

    name: str
    run: Callable[[Any], Any] = field(repr=False)
    theirs: Any
    ours: Any
    rtol: float = 1e-6

    def __str__(self) -> str:
        return self.name


def assert_differs(difference: Difference, their_side: Any, our_side: Any) -> None:
    """Assert that both sides do what the table says, and that the table says a difference."""
    assert_result(result_of(lambda: difference.run(their_side)), difference.theirs, difference.rtol, "theirs")
    assert_result(result_of(lambda: difference.run(our_side)), difference.ours, difference.rtol, "ours")
    try:
        assert_result(difference.ours, difference.theirs, rtol=0)
    except AssertionError:
        return
    raise AssertionError(f"{difference.name}: both sides of the table say {difference.ours!r}")
