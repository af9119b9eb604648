"""The compiled kernel against float64: dtypes, sizes, layouts, extremes."""

from __future__ import annotations

import math
from array import array

import numpy as np
import pytest
import torch

from gradclip.backends import cpu
from gradclip.norms import Norm
from tests import reference
from tests.backends.support import PLAIN, describe
from tests.support import TOLERANCE, numpy_of

pytestmark = pytest.mark.skipif(not cpu.enabled(), reason="the kernel was not built, or is switched off")

inf, nan = math.inf, math.nan
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SIZES = [*range(70), 100, 127, 128, 129, 1000, 1023, 1024, 1025, 2047, 2048, 2049, 5000]


def norms(tensors, p=2.0, cells=None):
    return list(describe(tensors, cells).norms(p))


def scaled(tensor, *factors, cells=None):
    describe([tensor], cells).scale(array("d", factors))
    return tensor


@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_norms_of_all_sizes_from_any_element_on(dtype, p):
    for offset in (0, 1, 3):
        tensors = [torch.randn(size + offset).to(dtype)[offset:] for size in SIZES]
        want = [reference.norm_of(numpy_of(t), Norm(p)) for t in tensors]
        np.testing.assert_allclose(norms(tensors, p), want, rtol=1e-14 if dtype == torch.float64 else 2e-7)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scaling_of_all_sizes_from_any_element_on(dtype):
    for size in SIZES:
        for offset in (0, 1, 3):
            whole = torch.randn(size + offset + 5).to(dtype)
            before = whole.clone()
            scaled(whole[offset : size + offset], 0.37)
            want = before.clone()
            want[offset : size + offset] = (before[offset : size + offset].double() * 0.37).to(dtype)
            torch.testing.assert_close(whole, want, rtol=TOLERANCE[dtype], atol=0)
            assert torch.equal(whole[:offset], before[:offset])  # nothing beside it was touched
            assert torch.equal(whole[size + offset :], before[size + offset :])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bounds", [(-0.3, 0.3), (-0.1, 0.7), (0.0, 0.5), (-9.0, 9.0)])
def test_clamping_is_torchs(dtype, bounds):
    for size in SIZES:
        grad = torch.randn(size + 1).to(dtype)[1:]
        want = grad.clone().clamp_(*bounds)
        before = grad.abs().max() if size else 0
        outside = bool((grad != want).any())
        largest, changed = describe([grad]).clamp(*bounds)
        assert changed == outside
        assert list(largest) == [float(before) if size else 0.0]
        assert torch.equal(grad, want)


def test_clamping_keeps_nan_and_bounds_inf():
    grad = torch.tensor([nan, inf, -inf, 0.1])
    describe([grad]).clamp(-1.0, 2.0)
    np.testing.assert_array_equal(grad, [nan, 2, -1, np.float32(0.1)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("factor", [0.5, 0.3, 1.7, 2.0**-14, 3000.0])
def test_every_half_precision_number_is_read_and_rounded_as_torch_does(dtype, factor):
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)
    sizes = norms([every.clone()], cells=[1 << 16])
    np.testing.assert_array_equal(sizes, every.double().abs())
    want = (every.float() * factor).to(dtype)
    np.testing.assert_array_equal(scaled(every.clone(), factor).float(), want.float())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_many_tensors_and_none(dtype):
    tensors = [None if i % 7 == 3 else torch.randn(i % 50, dtype=torch.float32).to(dtype) for i in range(3000)]
    want = [0.0 if t is None else reference.norm_of(numpy_of(t), Norm(2)) for t in tensors]
    np.testing.assert_allclose(norms(tensors), want, rtol=2e-7)


def test_a_cell_of_many_pieces():
    """Longer than a piece: the pieces' norms are joined."""
    x = torch.randn(3, 500_001)
    for p in (1, 2, inf):
        want = torch.linalg.vector_norm(x.double(), p, dim=1)
        np.testing.assert_allclose(norms([x], p, [3]), want, rtol=2e-7)
        np.testing.assert_allclose(norms([x], p), [torch.linalg.vector_norm(x.double(), p)], rtol=2e-7)
    want = x * torch.tensor([[0.5], [1.0], [2.0]])
    assert torch.equal(scaled(x, 0.5, 1.0, 2.0, cells=[3]), want)


def test_units_are_runs_of_a_tensor():
    a, b = torch.randn(37, 9), torch.randn(5)
    found = norms([a, None, b, torch.zeros(0, 3)], cells=[37, 4, 1, 0])
    np.testing.assert_allclose(found, [*a.double().norm(dim=1), 0, 0, 0, 0, b.double().norm()], rtol=2e-7)
    factors = torch.arange(37.0)
    assert torch.equal(scaled(a.clone(), *factors.tolist(), cells=[37]), a * factors[:, None])


@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize("bad", [nan, inf, -inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_bad_element_anywhere(dtype, bad, p):
    for size, at in ((1, 0), (40, 39), (1024, 500), (300_000, 299_999), (300_000, 131_072)):
        x = torch.randn(size).to(dtype)
        x[at] = bad
        assert norms([x], p)[0] == pytest.approx(abs(bad), nan_ok=True)


def test_nan_wins_over_inf_in_another_piece():
    for first, second in ((inf, nan), (nan, inf)):
        x = torch.zeros(300_000)
        x[0], x[-1] = first, second
        assert all(math.isnan(norms([x], p)[0]) for p in (1, 2, inf))


@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize(
    ("value", "dtype"),
    [(1e30, torch.float32), (3e38, torch.float32), (1e-30, torch.float32), (1e-44, torch.float32), (6e4, torch.float16),
     (6e-8, torch.float16), (3e38, torch.bfloat16), (1e-40, torch.bfloat16), (1e300, torch.float64),
     (1e-300, torch.float64), (5e-324, torch.float64)],
)  # fmt: skip
def test_extremes_neither_overflow_nor_vanish(value, dtype, p):
    x = torch.full((200_000,), value, dtype=dtype)
    one = float(x[0])
    want = one if p == inf else one * x.numel() ** (1 / p)
    assert norms([x], p)[0] == pytest.approx(want, rel=5e-7)


@pytest.mark.parametrize("factor", [1e-40, 1e-300, 0.0, 1e39])
def test_factors_beyond_float32(factor):
    x = torch.tensor([1e30, -2e38, 1e-30, 0.0])
    with np.errstate(over="ignore"):
        want = (numpy_of(x) * factor).astype(np.float32)
    np.testing.assert_array_equal(scaled(x, factor), want)


OTHERS = {
    "a slice": lambda: torch.randn(4, 5)[:, 1:],
    "every second": lambda: torch.randn(9)[::2],
    "expanded": lambda: torch.randn(()).expand(3),
    "overlapping": lambda: torch.randn(9).as_strided((2, 2, 2), (1, 1, 5)),
    "complex": lambda: torch.randn(3, dtype=torch.complex64),
    "integers": lambda: torch.arange(3),
    "without memory": lambda: torch.randn(3, device="meta"),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "misaligned": lambda: torch.frombuffer(bytearray(17), dtype=torch.float32, offset=1, count=4),
    "a subclass": lambda: torch.randn(3).as_subclass(type("Special", (torch.Tensor,), {})),
}


@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN)
def test_takes_what_fills_one_stretch_of_memory(make):
    tensor = make()
    table = describe([tensor])
    assert table.left_out == []
    assert table.norms(2)[0] == pytest.approx(float(tensor.detach().double().norm()), rel=2e-7)


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_leaves_the_rest_alone(make):
    one = torch.tensor([3.0, 4.0])
    table = describe([one, make(), one])
    assert table.left_out == [1]
    assert list(table.norms(2)) == [5.0, 0.0, 5.0]


def test_units_need_the_usual_order_of_axes():
    assert describe([torch.randn(4, 5).t()], [5]).left_out == [0]


def test_a_batched_tensor_is_left_alone():
    """Inside vmap a tensor has no memory of its own."""
    left = []
    torch.func.vmap(lambda x: left.append(describe([x]).left_out) or x)(torch.randn(2, 3))
    assert left == [[0]]


def test_autograd_knows_of_a_change():
    x, untouched = torch.ones(3), torch.ones(3)
    versions = x._version, untouched._version
    scaled(x, 0.5)
    assert x._version > versions[0]
    assert not describe([untouched]).clamp(-2.0, 2.0)[1]
    assert untouched._version == versions[1]
    assert describe([untouched]).clamp(-0.5, 0.5)[1]
    assert untouched._version > versions[1]
