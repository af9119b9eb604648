"""The kernels against float64: dtypes, sizes, layouts, extremes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gradclip.backends import gpu
from gradclip.backends.chunks import CHUNK, TILE
from gradclip.norms import Norm
from tests import reference
from tests.backends.support import PLAIN, taken
from tests.gpu.support import need_kernels
from tests.support import TOLERANCE, numpy_of

need_kernels()

inf, nan = math.inf, math.nan
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SIZES = [0, 1, 2, 7, 8, 9, 100, 1000, TILE - 1, TILE, TILE + 8, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 24]


@pytest.fixture
def measured(device):
    def measure(tensors, p=2.0, cells=None):
        table = taken(gpu.Gpu, [None if t is None else t.to(device) for t in tensors], cells)
        assert table.left_out == []
        return table.norms(p).cpu().numpy()

    return measure


@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize("offset", [0, 1, 8])
def test_norms_of_all_sizes_and_dtypes_together_from_any_element_on(device, p, offset):
    whole = [torch.randn(size + offset, device=device).to(dtype) for size in SIZES for dtype in DTYPES]
    tensors = [t[offset:] for t in whole]
    want = [reference.norm_of(numpy_of(t.cpu()), Norm(p)) for t in tensors]
    np.testing.assert_allclose(taken(gpu.Gpu, tensors).norms(p).cpu(), want, rtol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("factor", [0.37, 1e-40, 0.0, 1e39, -2.0, nan, inf])
def test_scaling_of_all_sizes_from_any_element_on(device, dtype, factor):
    """Element for element as float64 rounds it, and nothing beside it is touched."""
    for offset in (0, 1):
        whole = [torch.randn(size + offset + 5, device=device).to(dtype) for size in (1, 1000, TILE + 8, CHUNK + 1)]
        before = [t.clone() for t in whole]
        taken(gpu.Gpu, [t[offset:-5] for t in whole]).scale([factor] * len(whole))
        for now, was in zip(whole, before, strict=True):
            inside = slice(offset, len(now) - 5)
            want = was[inside].double() * factor if abs(factor) in (1e-40, 1e39) else (was[inside].float() * factor).double()
            assert torch.equal(now[inside].nan_to_num(9), want.float().to(dtype).nan_to_num(9))
            assert torch.equal(now[:offset], was[:offset])
            assert torch.equal(now[-5:], was[-5:])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_factor_of_one_leaves_every_bit_alone(device, dtype):
    bits = torch.randint(-(2**15), 2**15, (2 * TILE,), dtype=torch.int16).to(device)
    same, halved = (bits.clone().view(dtype) for _ in range(2))
    taken(gpu.Gpu, [same, halved]).scale(torch.tensor([1.0, 0.5], device=device))
    assert torch.equal(same.view(torch.int16), bits)
    assert not torch.equal(halved.view(torch.int16), bits)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bounds", [(-0.3, 0.3), (-0.1, 0.7), (0.0, 0.5), (-9.0, 9.0)])
def test_clamping_is_torchs(device, dtype, bounds):
    for offset in (0, 1):
        for size in (1, 1000, TILE + 8, CHUNK + 1):
            grad = torch.randn(size + offset, device=device).to(dtype)[offset:]
            want = grad.clone().clamp_(*bounds)
            table = taken(gpu.Gpu, [grad])
            assert bool(table.outside(*bounds)) == bool((grad != want).any())
            table.clamp(*bounds)
            assert torch.equal(grad, want)
            assert not table.outside(*bounds)


def test_clamping_keeps_nan_and_bounds_inf(device):
    grad = torch.tensor([nan, inf, -inf, 0.1], device=device)
    taken(gpu.Gpu, [grad]).clamp(-1.0, 2.0)
    np.testing.assert_array_equal(grad.cpu(), [nan, 2, -1, np.float32(0.1)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_half_precision_number_is_read_and_rounded_as_torch_does(device, dtype):
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype).to(device)
    sizes = taken(gpu.Gpu, [every], [1 << 16]).norms(inf)
    np.testing.assert_array_equal(sizes.cpu(), every.double().abs().cpu())
    for factor in (0.5, 0.3, 1.7, 2.0**-14, 3000.0):
        now, want = every.clone(), (every.float() * factor).to(dtype)
        taken(gpu.Gpu, [now]).scale([factor])
        np.testing.assert_array_equal(now.float().cpu(), want.float().cpu())


def test_a_thousand_small_tensors_and_none(measured):
    tensors = [None if i % 7 == 3 else torch.randn(i % 50).to(DTYPES[i % 3]) for i in range(1000)]
    want = [0.0 if t is None else reference.norm_of(numpy_of(t), Norm(2)) for t in tensors]
    np.testing.assert_allclose(measured(tensors), want, rtol=1e-7)


@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize(
    "shape", [(37, 9), (5, 16), (300, 40), (6, 1000), (3, TILE), (3, TILE + 1), (2, CHUNK + 5), (1, 9), (4, 0)]
)
def test_units_are_runs_of_a_tensor(device, measured, shape, p):
    grad, other = torch.randn(shape), torch.randn(5)
    units = torch.linalg.vector_norm(grad.double(), p, dim=1) if grad.numel() else torch.zeros(4)
    want = [*units, 0, 0, torch.linalg.vector_norm(other.double(), p)]
    cells = [shape[0], 2, 1]
    np.testing.assert_allclose(measured([grad, None, other], p, cells), want, rtol=1e-7)
    now = grad.to(device, copy=True)
    factors = torch.rand(shape[0], dtype=torch.float64)
    factors[::3] = 1
    taken(gpu.Gpu, [now], [shape[0]]).scale(factors.to(device))
    assert torch.equal(now.cpu(), grad * factors.float()[:, None])


@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize("bad", [nan, inf, -inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_bad_element_anywhere(measured, dtype, bad, p):
    tensors = []
    for size, at in ((1, 0), (40, 39), (CHUNK + 9, CHUNK + 8), (CHUNK + 9, 3)):
        tensors.append(torch.randn(size).to(dtype))
        tensors[-1][at] = bad
    np.testing.assert_array_equal(measured(tensors, p), [abs(bad)] * len(tensors))


def test_nan_wins_over_inf_in_another_chunk(measured):
    tensors = [torch.zeros(CHUNK + 1), torch.zeros(CHUNK + 1)]
    tensors[0][0], tensors[0][-1] = inf, nan
    tensors[1][0], tensors[1][-1] = nan, inf
    for p in (1, 2, inf):
        assert np.isnan(measured(tensors, p)).all()


@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize("size", [9, CHUNK + 8])
def test_extremes_neither_overflow_nor_vanish(measured, p, size):
    found = [(x, torch.float32) for x in (1e30, 3e38, 1e-30, 1e-44, 1e-13, 2e-12)]
    found += [(6e4, torch.float16), (6e-8, torch.float16), (3e38, torch.bfloat16), (1e-40, torch.bfloat16)]
    tensors = [torch.full((size,), value, dtype=dtype) for value, dtype in found]
    want = [float(t[0]) if p == inf else float(t[0]) * size ** (1 / p) for t in tensors]
    np.testing.assert_allclose(measured(tensors, p), want, rtol=1e-7)


def test_one_large_row_does_not_hide_a_small_one(measured):
    rows = torch.tensor([1e30, 1e-30, 1.0, 0.0])[:, None].expand(4, 20).contiguous()
    np.testing.assert_allclose(measured([rows], 2, [4]), rows[:, 0].double() * 20**0.5, rtol=1e-7)


def test_the_same_bits_twice(device):
    tensors = [torch.randn(n, device=device).to(d) for n in (7, 5000, CHUNK + 1) for d in DTYPES]
    table = taken(gpu.Gpu, tensors)
    first = {p: table.norms(p) for p in (1, 2, inf)}
    again = taken(gpu.Gpu, tensors)
    assert all(torch.equal(first[p], again.norms(p)) for p in first)


def test_tables_are_sent_once(device):
    tensors = [torch.randn(9, device=device), torch.randn(3, device=device)]
    one, two = taken(gpu.Gpu, tensors), taken(gpu.Gpu, list(tensors))
    moved = taken(gpu.Gpu, [torch.randn(9, device=device), torch.randn(3, device=device)])
    assert one.addresses is two.addresses
    assert one.layout is two.layout is moved.layout
    assert moved.addresses is not one.addresses


@pytest.mark.parametrize("p", [1, 2, inf])
@pytest.mark.parametrize(
    "norms", [[3.0], [3.0, 4.0], [1e300, 1e300], [1e-300], [0.0, 0.0], [inf, 1.0], [nan, inf], [2.0] * 3000]
)
def test_all_cells_together(device, norms, p):
    vector = torch.tensor(norms, dtype=torch.float64, device=device)
    found, factor, returned = taken(gpu.Gpu, [vector.float()]).conclude(vector, p, 0.1, torch.float32)
    top = max(norms) if max(norms) not in (0.0, inf) and not any(map(math.isnan, norms)) else 1.0
    want = float(torch.linalg.vector_norm(vector.cpu() / top, p)) * top
    np.testing.assert_allclose(float(found), want, rtol=1e-14)
    np.testing.assert_allclose(float(factor), min(1.0, 0.1 / (want + 1e-6)) if want == want else nan, rtol=1e-14)
    np.testing.assert_array_equal(returned.cpu(), found.float().cpu())


def test_autograd_knows_of_a_change(device):
    grad = torch.ones(3, device=device)
    before = grad._version
    taken(gpu.Gpu, [grad]).scale([0.5])
    assert grad._version > before


WHOLE = {**PLAIN, "empty": lambda: torch.randn(0, 3)}
OTHERS = {
    "a slice": lambda: torch.randn(4, 5)[:, 1:],
    "every second": lambda: torch.randn(9)[::2],
    "expanded": lambda: torch.randn(()).expand(3),
    "overlapping": lambda: torch.randn(9).as_strided((2, 2, 2), (1, 1, 5)),
    "complex": lambda: torch.randn(3, dtype=torch.complex64),
    "double": lambda: torch.randn(3, dtype=torch.float64),
    "integers": lambda: torch.arange(3),
    "without memory": lambda: torch.randn(3, device="meta"),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "a subclass": lambda: torch.randn(3).as_subclass(type("Special", (torch.Tensor,), {})),
}


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE)
def test_takes_what_fills_one_stretch_of_memory(device, make):
    tensor = make().to(device)
    table = taken(gpu.Gpu, [tensor])
    assert table.left_out == []
    assert float(table.norms(2)[0]) == pytest.approx(float(tensor.detach().double().norm()), rel=1e-7)
    want = tensor.detach() * 0.5
    table.scale([0.5])
    assert torch.equal(tensor.detach(), want)


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_leaves_the_rest_alone(device, make):
    one, made = torch.tensor([3.0, 4.0], device=device), make()
    table = taken(gpu.Gpu, [one, made if made.is_meta else made.to(device), one.clone()])
    assert table.left_out == [1]
    assert table.norms(2).tolist() == [5.0, 0.0, 5.0]


def test_units_need_the_usual_order_of_axes(device):
    assert taken(gpu.Gpu, [torch.randn(4, 5, device=device).t()], [5]).left_out == [0]
    assert taken(gpu.Gpu, [torch.randn(4, 5, device=device).t()], [1]).left_out == []


def test_a_batched_tensor_is_left_alone(device):
    """Inside vmap a tensor has no memory of its own."""
    left = []
    torch.func.vmap(lambda x: left.append(taken(gpu.Gpu, [x]).left_out) or x)(torch.randn(2, 3, device=device))
    assert left == [[0]]


def test_half_precision_tolerance_is_rounding_alone(device):
    """What the pipeline may be off by: the table that its tests use is not looser than one rounding needs."""
    grad = torch.randn(CHUNK + 5, device=device).to(torch.bfloat16)
    want = grad.double() * 0.3
    taken(gpu.Gpu, [grad]).scale([0.3])
    torch.testing.assert_close(grad.double(), want, rtol=TOLERANCE[torch.bfloat16], atol=0)
