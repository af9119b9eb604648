"""Where the drop-in functions differ from ``torch.nn.utils`` on purpose: a table, and both of its sides hold."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import utils

import gradclip.torch
from tests.oracles.support import Difference, assert_differs, parameters_of

inf, nan = math.inf, math.nan


def _clip(grad, max_norm=1.0, p=2.0, dtype=None, **options):
    """A case: clip one gradient; what is returned and what the gradient becomes."""

    def run(module):
        (parameter,) = parameters_of([grad], dtype)
        return [module.clip_grad_norm_([parameter], max_norm, p, **options), parameter.grad]

    return run


def _value(grads, bound):
    def run(module):
        parameters = parameters_of(grads)
        return [module.clip_grad_value_(parameters, bound), *(p.grad for p in parameters)]

    return run


def _norm(grads, p=2.0):
    return lambda module: module.get_total_norm(grads, p)


def _version(function, argument):
    """How often a gradient that needs no scaling was written to."""

    def run(module):
        (parameter,) = parameters_of([torch.full((5000,), 1e-3)])
        getattr(module, function)([parameter], argument)
        return parameter.grad._version

    return run


def _out_of_place(module):
    (parameter,) = parameters_of([[3.0, 4.0]])
    return [module.clip_grad_norm([parameter], 1.0), parameter.grad]


def _expanded(module):
    (parameter,) = parameters_of([torch.zeros(4)])
    parameter.grad = torch.tensor(2.0).expand(4)
    return [module.clip_grad_norm_([parameter], 9.0), parameter.grad]


def _dtype_of_norm(dtype):
    return lambda module: str(module.get_total_norm([torch.ones(4, dtype=dtype)]).dtype)


half = torch.float16
DIFFERENCES = [
    # Finite gradients are clipped, whatever their size; torch's norm overflows and everything becomes 0.
    Difference("1e20 in float32", _clip([1e20, 0.0]), theirs=[inf, [0.0, 0.0]], ours=[1e20, [1.0, 0.0]]),
    Difference("3e38 to 1e-6", _clip([1.8e38, 2.4e38], 1e-6), theirs=[inf, [0.0, 0.0]], ours=[3e38, [0.6e-6, 0.8e-6]]),
    Difference("cubes of 1e13", _clip([1e13, 1e13], p=3), theirs=[inf, [0.0, 0.0]],
               ours=[2 ** (1 / 3) * 1e13, [0.5 ** (1 / 3)] * 2]),
    Difference("float16 total above 65504", _clip([3e4, 6e4], dtype=half), theirs=[inf, [0.0, 0.0]],
               ours=[45e8**0.5, [0.2**0.5, 0.8**0.5]], rtol=1e-3),
    Difference("float16 sum above 65504", _norm([torch.full((1000,), 100.0, dtype=half)], 1), theirs=inf, ours=1e5),
    Difference("a finite float16 total is no error", _clip([3e4, 6e4], dtype=half, error_if_nonfinite=True),
               theirs=RuntimeError, ours=[45e8**0.5, [0.2**0.5, 0.8**0.5]], rtol=1e-3),
    # A norm beyond the returned dtype reads inf, but the gradients are clipped by the true one.
    Difference("a norm above float32", _clip([3e38, 3e38], p=1), theirs=[inf, [0.0, 0.0]], ours=[inf, [0.5, 0.5]]),
    Difference("a norm above float32 is no error", _clip([3e38, 3e38], p=1, error_if_nonfinite=True),
               theirs=RuntimeError, ours=[inf, [0.5, 0.5]]),
    # Squares that vanish: torch's norm of a gradient that is not zero is 0.
    Difference("1e-30 in float32", _norm([torch.tensor([3e-30, 4e-30])]), theirs=0.0, ours=5e-30),
    Difference("1e-200 in float64", _norm([torch.tensor([3e-200, 4e-200], dtype=torch.float64)]), theirs=0.0, ours=5e-200),
    # Norms are not rounded to the gradient's dtype, and come back in float32 at least.
    Difference("the norm's dtype in float16", _dtype_of_norm(half), theirs="torch.float16", ours="torch.float32"),
    Difference("the norm's dtype in bfloat16", _dtype_of_norm(torch.bfloat16), theirs="torch.bfloat16", ours="torch.float32"),
    Difference("bfloat16 norm", _norm([torch.ones(3, dtype=torch.bfloat16)]), theirs=1.734375, ours=3**0.5, rtol=1e-7),
    Difference("float16 norm", _norm([torch.ones(3, dtype=half)]), theirs=1.732421875, ours=3**0.5, rtol=1e-7),
    # The coefficient is not rounded either: 1e-2 / 6e4 is below float16's normal numbers, and 0 / (0 + 1e-6) is 0 / 0 there.
    Difference("a small float16 coefficient", _clip([6e4, 0.0], 1e-2, inf, half), theirs=[6e4, [1.07e-2, 0.0]],
               ours=[6e4, [1e-2, 0.0]], rtol=5e-3),
    Difference("max_norm 0 and a zero float16 gradient", _clip([0.0, 0.0], 0.0, dtype=half), theirs=[0.0, [nan, nan]],
               ours=[0.0, [0.0, 0.0]]),
    # What needs no scaling is not written to.
    Difference("writes below the norm", _version("clip_grad_norm_", 1e3), theirs=1, ours=0),
    Difference("writes below the value", _version("clip_grad_value_", 1e3), theirs=2, ours=0),
    # Nothing to clip is no error.
    Difference("no gradient for clip_grad_value_", _value([None], 1.0), theirs=RuntimeError, ours=[None, None]),
    Difference("no parameter for clip_grad_value_", _value([], 1.0), theirs=RuntimeError, ours=[None]),
    Difference("the largest of no elements", _norm([torch.zeros(0), torch.ones(2)], inf), theirs=RuntimeError, ours=1.0),
    Difference("integers", _norm([torch.tensor([3, 4])]), theirs=RuntimeError, ours=5.0),
    Difference("an expanded gradient below the norm", _expanded, theirs=RuntimeError, ours=[4.0, [2.0] * 4]),
    # The deprecated name without an underscore: torch's changes the gradients, ours returns copies.
    Difference("clip_grad_norm", _out_of_place, theirs=[5.0, [0.6, 0.8]], ours=[[[0.6, 0.8]], [3.0, 4.0]]),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*clip_grad_norm.*deprecated:FutureWarning")
@pytest.mark.parametrize("difference", DIFFERENCES, ids=str)
def test_differs_as_the_table_says(difference):
    assert_differs(difference, utils, gradclip.torch)


def test_copies_are_one_for_each_parameter():
    parameters = parameters_of([[3.0], None, [4.0]])
    copies = gradclip.torch.clip_grad_norm(parameters, 1.0)
    assert copies[1] is None
    assert [copies[0].tolist(), copies[2].tolist()] == [pytest.approx([0.6]), pytest.approx([0.8])]
    assert [p.grad if p.grad is None else p.grad.tolist() for p in parameters] == [[3.0], None, [4.0]]


def test_copies_are_copies_even_when_nothing_is_clipped():
    (parameter,) = parameters_of([[3.0, 4.0]])
    (copy,) = gradclip.torch.clip_grad_norm(parameter, 100.0)
    assert copy.tolist() == [3.0, 4.0]
    assert copy.data_ptr() != parameter.grad.data_ptr()


def test_a_large_tensor_is_measured_more_exactly():
    """One tensor of 2^22 equal elements: float32 sums drift in torch, not here."""
    grad = torch.full((1 << 22,), 0.1)
    exact = float(grad[0]) * 2.0**11
    theirs, ours = (float(m.get_total_norm([grad])) for m in (utils, gradclip.torch))
    assert ours == pytest.approx(exact, rel=1e-7)
    assert abs(ours - exact) <= abs(theirs - exact)
