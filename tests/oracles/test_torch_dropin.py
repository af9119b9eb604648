"""The drop-in functions do what ``torch.nn.utils`` does to the same gradients."""

from __future__ import annotations

import inspect
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import utils

import gradclip.torch as ours
from tests.oracles.support import assert_result, assert_same_as_torch, parameters_of, plain
from tests.support import TOLERANCE

inf, nan = math.inf, math.nan
ROUNDING = {
    torch.float64: 1e-14,
    torch.float32: 2e-6,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
    torch.complex64: 2e-6,
    torch.complex128: 1e-14,
}
"""What torch itself loses: it rounds norms and the coefficient to the gradient's dtype."""
POSITIVE = [0.5, 1, 1.5, 2, 3, 4, inf]
OTHERS = [0, -1, -2.5, -inf]
NAMES = ["clip_grad_norm", "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm"]


def _gradients(dtype=torch.float32):
    """Contiguous, transposed, sliced, a scalar, and none."""
    return [torch.randn(4, 3, dtype=dtype), torch.randn(3, 5, dtype=dtype).t(), torch.randn(9, dtype=dtype)[1::2],
            torch.randn((), dtype=dtype), None]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_the_same(name):
    def described(module):
        found = inspect.signature(getattr(module, name)).parameters.values()
        return [(p.name, p.default, p.kind) for p in found]

    assert described(ours) == described(utils)


@pytest.mark.filterwarnings("ignore:Casting complex values to real")  # torch's own, at p = 0
@pytest.mark.parametrize("foreach", [None, True, False])
@pytest.mark.parametrize("p", [*POSITIVE, *OTHERS, "inf"])
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_clips_to_the_norm(dtype, p, foreach):
    grads = _gradients(dtype)
    assert_same_as_torch(grads, lambda m, ps: m.clip_grad_norm_(ps, 0.5, p, foreach=foreach), ROUNDING[dtype])
    assert_same_as_torch(
        [g for g in grads if g is not None], lambda m, ps: m.get_total_norm([q.grad for q in ps], p), ROUNDING[dtype]
    )


@pytest.mark.parametrize("p", POSITIVE)
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_is_as_exact_as_torch_in_float64(dtype, p):
    grads = _gradients(dtype)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    exact = parameters_of([g if g is None else g.to(wide) for g in grads])
    want = utils.clip_grad_norm_(exact, 0.5, p)
    parameters = parameters_of(grads)
    assert_result(plain(ours.clip_grad_norm_(parameters, 0.5, p)), plain(want), 1e-7 if dtype != wide else 1e-14)
    assert_result(plain([q.grad for q in parameters]), plain([q.grad for q in exact]), TOLERANCE[dtype])


@pytest.mark.parametrize("max_norm", [1.0, 1e-3, 0.0, -1.0, nan, inf, "0.5", 1])
@pytest.mark.parametrize("bad", [None, nan, inf, -inf, (nan, inf)], ids=str)
@pytest.mark.parametrize("p", [1, 2, 3, inf, 0, -1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_strange_norms_and_gradients_element_by_element(dtype, p, bad, max_norm):
    grads = [torch.randn(5, dtype=dtype), torch.randn(2, 2, dtype=dtype)]
    if bad is not None:
        grads[0][: len(bad) if isinstance(bad, tuple) else 1] = torch.tensor(bad, dtype=dtype)
    returned, after = assert_same_as_torch(grads, lambda m, ps: m.clip_grad_norm_(ps, max_norm, p), ROUNDING[dtype])
    if bad == inf and p == 2 and max_norm == 1.0:
        assert returned == inf
        assert after[1] == [[0, 0], [0, 0]]
        assert math.isnan(after[0][0])
        assert after[0][1:] == [0] * 4


@pytest.mark.parametrize("bad", [nan, inf, -inf])
@pytest.mark.parametrize("function", ["clip_grad_norm_", "clip_grad_norm", "get_total_norm"])
def test_an_error_comes_before_any_change(function, bad):
    grads = [torch.tensor([3.0, bad]), torch.ones(2)]
    messages = []
    for module in (utils, ours):
        parameters = parameters_of(grads)
        given = (grads,) if function == "get_total_norm" else (parameters, 1.0)
        call = utils.clip_grad_norm_ if (module, function) == (utils, "clip_grad_norm") else getattr(module, function)
        with pytest.raises(RuntimeError) as caught:
            call(*given, error_if_nonfinite=True)
        messages.append(str(caught.value))
        assert_result(plain([p.grad for p in parameters]), plain(grads), rtol=0)
    assert messages[0] == messages[1]


CONTAINERS = {
    "a parameter": lambda ps: ps[0],
    "a list": list,
    "a tuple": tuple,
    "a generator": lambda ps: (p for p in ps),
    "an iterator": iter,
    "a dict's values": lambda ps: dict(enumerate(ps)).values(),
    "a model's parameters": lambda ps: nn.ParameterList(ps).parameters(),
    "an empty list": lambda ps: [],
    "an empty iterator": lambda ps: iter(()),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers(container):
    made = CONTAINERS[container]
    grads = [torch.tensor([3.0, -4.0]), None, torch.tensor(12.0)]
    assert_same_as_torch(grads, lambda m, ps: m.clip_grad_norm_(made(ps), 1.0))
    assert_same_as_torch(grads, lambda m, ps: m.clip_grads_with_norm_(made(ps), 1.0, torch.tensor(13.0)))
    if "empty" not in container:  # torch's function crashes there: see the table of differences
        assert_same_as_torch(grads, lambda m, ps: m.clip_grad_value_(made(ps), 0.5))
        assert_same_as_torch(grads[::2], lambda m, ps: m.get_total_norm(made([p.grad for p in ps])))


def test_an_empty_generator_warns_at_the_callers_line():
    found = []
    for module in (utils, ours):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            total = module.clip_grad_norm_((p for p in ()), 1.0)
        found.append((total, total.dtype, [(str(w.message), w.category, w.filename) for w in caught]))
    assert found[0] == found[1]
    assert len(found[1][2]) == 1
    assert found[1][2][0][2] == __file__


@pytest.mark.parametrize("grads", [[], [None], [None, None]], ids=str)
def test_without_gradients_the_norm_is_zero(grads):
    assert assert_same_as_torch(grads, lambda m, ps: m.clip_grad_norm_(ps, 1.0))[0] == 0.0
    assert ours.clip_grad_norm_(parameters_of(grads), 1.0).dtype == utils.clip_grad_norm_(parameters_of(grads), 1.0).dtype


def test_a_parameter_passed_twice_counts_and_shrinks_twice():
    after = assert_same_as_torch([torch.tensor([3.0, 4.0])], lambda m, ps: m.clip_grad_norm_(ps * 2, 1.0))
    assert after[0] == pytest.approx(50**0.5)
    assert after[1][0] == pytest.approx([0.06, 0.08], rel=1e-5)


@pytest.mark.parametrize("p", [1, 2, inf])
def test_sparse_gradients_are_clipped_where_torch_raises(p):
    """Repeated rows are merged first: 1 + 2 in row 0."""
    sparse = torch.sparse_coo_tensor([[0, 2, 0]], [1.0, 4.0, 2.0], (3,), check_invariants=True)
    dense = nn.Parameter(torch.zeros(3))
    dense.grad = torch.tensor([3.0, 0.0, 4.0])
    want = utils.clip_grad_norm_(dense, 1.0, p)
    with pytest.raises(NotImplementedError):
        utils.clip_grad_norm_(_sparse_parameter(sparse), 1.0, p)
    for foreach in (None, True, False):
        parameter = _sparse_parameter(sparse)
        assert float(ours.clip_grad_norm_(parameter, 1.0, p, foreach=foreach)) == pytest.approx(float(want), rel=1e-6)
        assert parameter.grad.is_sparse
        torch.testing.assert_close(parameter.grad.to_dense(), dense.grad)
        parameter = _sparse_parameter(sparse)
        ours.clip_grad_value_(parameter, 2.5)
        assert parameter.grad.to_dense().tolist() == [2.5, 0.0, 2.5]


def _sparse_parameter(grad):
    parameter = nn.Parameter(torch.zeros(grad.shape))
    parameter.grad = grad.clone()
    return parameter


@pytest.mark.parametrize("p", [0.5, 1, 2, 4])
def test_empty_tensors_count_for_nothing(p):
    assert_same_as_torch([torch.zeros(0, 3), torch.randn(4), torch.zeros(0)], lambda m, ps: m.clip_grad_norm_(ps, 0.5, p))
    assert_same_as_torch([torch.zeros(0, 3)], lambda m, ps: m.clip_grad_norm_(ps, 0.5, p))


@pytest.mark.parametrize("p", [1, 2, inf, 0, -1])
@pytest.mark.parametrize("dtypes", [
    (torch.float32, torch.float64), (torch.float32, torch.bfloat16), (torch.float16, torch.float32),
    (torch.float32, torch.complex64), (torch.float64, torch.complex64), (torch.float16, torch.bfloat16, torch.float64),
], ids=str)  # fmt: skip
def test_mixed_dtypes_return_the_widest(dtypes, p):
    grads = [torch.randn(7, dtype=dtype) for dtype in dtypes]
    assert_same_as_torch(grads, lambda m, ps: m.clip_grad_norm_(ps, 0.5, p), max(ROUNDING[d] for d in dtypes))
    assert ours.get_total_norm(grads, p).dtype == utils.get_total_norm(grads, p).dtype


def test_a_graph_behind_the_gradient_is_left_alone():
    for module in (utils, ours):
        parameter = nn.Parameter(torch.tensor([2.0]))
        (grad,) = torch.autograd.grad((parameter**3).sum(), parameter, create_graph=True)
        parameter.grad = grad
        total = module.clip_grad_norm_([parameter], 1.0)
        assert (total.requires_grad, parameter.grad.grad_fn is grad.grad_fn) == (False, True)
        assert parameter.grad.tolist() == pytest.approx([1.0], rel=1e-5)
