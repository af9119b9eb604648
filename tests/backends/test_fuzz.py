"""Anything at all handed to the kernel: the right answer, or ValueError or TypeError; and no byte beside the tensors changes.

Every case has a seed, which a failure tells. ``make sanitize`` goes on with further seeds for GRADCLIP_FUZZ_SECONDS.
"""

from __future__ import annotations

import math
import os
import random
import time
from array import array
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from gradclip.backends import cpu
from tests.backends.support import describe
from tests.support import TOLERANCE

pytestmark = pytest.mark.skipif(not cpu.enabled(), reason="the kernel was not built, or is switched off")

CASES = 40
PLAIN = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
OTHERS = [torch.int32, torch.bool, torch.complex64]
SIZES = [0, 1, 2, 3, 7, 8, 31, 33, 64, 255, 1023, 1025]
LARGE = [131_071, 131_073, 262_145, 300_000]


def seeds(first):
    """So many cases; or as many as there is time for."""
    seconds = float(os.environ.get("GRADCLIP_FUZZ_SECONDS", "0"))
    end = time.monotonic() + seconds
    seed = first
    while time.monotonic() < end if seconds else seed < first + CASES:
        yield seed
        seed += 1


@dataclass
class Made:
    """A tensor in the midst of other memory, and how that memory was."""

    whole: torch.Tensor
    tensor: torch.Tensor
    before: torch.Tensor

    def same_place(self):
        """The tensor's elements as they were."""
        return self.before.as_strided(self.tensor.shape, self.tensor.stride(), self.tensor.storage_offset())

    def assert_is(self, want, rtol=0.0):
        """Assert what the tensor is now (None: what it was), and that nothing else has changed."""
        if want is not None:
            self.same_place().copy_(want)
        least = torch.finfo(self.whole.dtype).smallest_normal * rtol if self.whole.is_floating_point() else 0
        torch.testing.assert_close(self.whole, self.before, rtol=rtol, atol=least, equal_nan=True)


def make(rng, extreme):
    """A tensor of any dtype, shape and strides, from any element on; or None."""
    if rng.random() < 0.08:
        return None
    dtype = rng.choice(PLAIN) if rng.random() < 0.93 else rng.choice(OTHERS)
    shape = [rng.choice(SIZES[:6]) for _ in range(rng.randint(0, 3))]
    if rng.random() < 0.4:
        shape = [rng.choice(SIZES if rng.random() < 0.95 else LARGE)]
    stride = list(torch.empty(shape, device="meta").stride())
    match rng.choice(["plain"] * 6 + ["permuted", "permuted", "stepped", "expanded", "overlapping"]):
        case "permuted":
            order = rng.sample(range(len(shape)), len(shape))
            shape, stride = [shape[i] for i in order], [stride[i] for i in order]
        case "stepped":
            stride = [2 * s for s in stride]
        case "expanded":
            stride = [0 if rng.random() < 0.5 else s for s in stride]
        case "overlapping":
            stride = [max(1, s - 1) for s in stride]
    offset = rng.randint(0, 5)
    reach = offset + 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True) if n) + rng.randint(0, 5)
    values = torch.from_numpy(np.random.default_rng(rng.getrandbits(32)).standard_normal(reach))
    if extreme:
        values *= 10.0 ** rng.choice([-320, -300, -44, -30, -7, 0, 4, 30, 38, 200, 300])
        for _ in range(rng.randint(0, 1)):
            values[rng.randrange(reach)] = rng.choice([math.nan, math.inf, -math.inf, 0.0])
    whole = values.to(dtype)
    if rng.random() < 0.05:  # not aligned
        raw = bytearray(whole.element_size() * reach + 1)
        whole = torch.frombuffer(raw, dtype=dtype, offset=1, count=reach).zero_()
    return Made(whole, whole.as_strided(shape, stride, offset), whole.clone())


def takes(made, ordered):
    """Whether the kernel can take a tensor, said in another way than the kernel's."""
    tensor = made.tensor
    if tensor.dtype not in PLAIN:
        return False
    if not tensor.numel():
        return True
    if tensor.data_ptr() % tensor.element_size():
        return False
    if ordered:
        return tensor.is_contiguous()
    order = sorted(range(tensor.dim()), key=lambda d: (tensor.stride(d), tensor.shape[d] != 1))
    return tensor.permute(order[::-1]).is_contiguous()


def divisor(rng, count):
    """How many cells of equal length a tensor may have."""
    return rng.choice([n for n in range(1, min(count, 2000) + 1) if count % n == 0] or [0, 1, 5])


def norm(values, p):
    """The p-norm in extended precision; NaN wins over Inf."""
    x = np.abs(values.double().numpy().astype(np.longdouble))
    largest = x.max(initial=0)
    if np.isnan(x).any() or not 0 < largest < np.inf:
        return float(np.nan if np.isnan(x).any() else largest)
    with np.errstate(over="ignore"):
        return float(largest if p == math.inf else largest * ((x / largest) ** p).sum() ** (1 / np.longdouble(p)))


def runs(made, count):
    """A tensor's elements as they were, cell by cell."""
    return made.same_place().reshape(count, -1) if count else made.same_place().reshape(0, 0)


class Case:
    """Tensors, and into how many cells each is to be cut."""

    def __init__(self, seed, extreme=False):
        rng = self.rng = random.Random(seed)
        self.made = [make(rng, extreme) for _ in range(rng.randint(0, 6))]
        self.tensors = [None if m is None else m.tensor for m in self.made]
        self.cells = None
        if rng.random() < 0.5:
            self.cells = [rng.randint(0, 4) if m is None else divisor(rng, m.tensor.numel()) for m in self.made]
        self.own = [1] * len(self.made) if self.cells is None else self.cells
        self.left_out = [i for i, m in enumerate(self.made) if m is not None and not takes(m, self.cells is not None)]

    def each(self):
        """(tensor, its first cell, its number of cells, whether the kernel works on it)."""
        first = 0
        for i, (made, own) in enumerate(zip(self.made, self.own, strict=True)):
            yield made, first, own, made is not None and i not in self.left_out and made.tensor.numel() > 0
            first += own

    def assert_norms(self, found, p):
        assert len(found) == sum(self.own)
        for made, first, own, there in self.each():
            want = [norm(run, p) for run in runs(made, own)] if there else [0.0] * own
            rtol = 1e-12 if there and made.tensor.dtype == torch.float64 else 5e-7
            np.testing.assert_allclose(found[first : first + own], want, rtol=rtol, atol=1e-320)

    def assert_tensors(self, change):
        """Assert that each is what ``change(cells, number of the first)`` makes of it in float64."""
        for made, first, own, there in self.each():
            if made is None:
                continue
            want, dtype = None, made.tensor.dtype
            if there:
                want = change(runs(made, own).double().clone(), first).reshape(made.tensor.shape).to(dtype)
            made.assert_is(want, TOLERANCE[dtype] if there else 0.0)


@pytest.fixture(params=["the exchange API", "Python's facts"])
def way(request, monkeypatch):
    """How the kernel learns of tensors; even small work is shared."""
    monkeypatch.setattr(cpu, "_ALONE", 0)
    if request.param == "Python's facts":
        monkeypatch.setattr(cpu, "_API", None)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield request.param
    torch.set_num_threads(before)


def checked_table(case, way):
    """The table, whose choice of tensors must be the right one. (Python takes only those in the usual order of axes.)"""
    table = describe(case.tensors, case.cells)
    if way == "Python's facts":
        case.left_out = [i for i, m in enumerate(case.made) if m is not None and not takes(m, True)]
        left = [i for i in table.left_out if i in case.left_out or case.tensors[i].numel()]
        assert left == case.left_out
        case.left_out = list(table.left_out)
    assert list(table.left_out) == case.left_out
    return table


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_norms(way, p):
    for seed in seeds(1000 * int(min(p, 3))):
        case = Case(seed, extreme=True)
        try:
            case.assert_norms(checked_table(case, way).norms(p), p)
            case.assert_tensors(lambda x, first: x)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error


def scale(case, table):
    factors = torch.rand(table.cells, dtype=torch.float64) * 2
    table.scale(array("d", factors.tolist()))
    return lambda x, first: x * factors[first : first + len(x), None]


def limit(case, table):
    p = case.rng.choice([1, 2, math.inf])
    limits = torch.rand(table.cells, dtype=torch.float64) * 3
    found, _ = table.limit(array("d", limits.tolist()), p)
    case.assert_norms(found, p)

    def change(x, first):
        norms, own = torch.linalg.vector_norm(x, p, dim=1), limits[first : first + len(x)]
        return x * torch.where(norms > own, own / norms, 1.0)[:, None]

    return change


def clamp(case, table):
    low, high = sorted((case.rng.gauss(0, 1), case.rng.gauss(0, 1)))
    found, changed = table.clamp(low, high)
    case.assert_norms(found, math.inf)
    outside = [
        bool(((x < low) | (x > high)).any()) for x in (m.same_place().double() for m, _, _, there in case.each() if there)
    ]
    assert changed or not any(outside)
    return lambda x, first: x.clamp(low, high)


@pytest.mark.parametrize("change", [scale, limit, clamp])
def test_changes(way, change):
    for seed in seeds(10_000):
        torch.manual_seed(seed)
        case = Case(seed)
        try:
            case.assert_tensors(change(case, checked_table(case, way)))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error


def test_cells_that_do_not_fit(way):
    """Some number of cells is another: an error exactly where a tensor cannot be cut so."""
    for seed in seeds(20_000):
        case = Case(seed)
        cells = list(case.own)
        for i in range(len(cells)):
            if case.rng.random() < 0.5:
                cells[i] = case.rng.choice([-1, 0, 1, 2, 3, 5, 127, 1024, 2**31, 2**62, 2**63, 2**64, -(2**63)])
        cells += [1] * case.rng.choice([0, 0, 0, 0, 1])
        case.cells = case.own = cells
        fits = len(cells) == len(case.made) and all(n >= 0 for n in cells) and sum(cells) < 2**59
        for made, own in zip(case.made, cells, strict=False):
            if made is not None and takes(made, True) and made.tensor.numel():
                fits = fits and own > 0 and made.tensor.numel() % own == 0
        try:
            table = describe(case.tensors, cells)
        except ValueError:
            assert not fits, f"seed {seed}"
            continue
        assert fits, f"seed {seed}"
        assert table.cells == sum(cells)


ODD = [
    None, 0, 1, -1, 2, 7, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**31), -(2**63), -(2**70), 0.5, 1.0, 2.0, math.nan,
    math.inf, -math.inf, 1e308, "1", b"", bytes(48), bytearray(64), (), (1, 2), [], [None], [1], {}, object(), torch.ones(3),
    array("d"), array("d", [1.0]), array("d", bytes(64)), array("f", [1.0, 2.0]), array("q", [1]), np.zeros(4),
    np.zeros((2, 2)), np.zeros(8)[::2], np.zeros(3, ">f8"), np.array(1.0), torch.float32,
    memoryview(bytes(16)).cast("d"), memoryview(bytearray(17))[1:].cast("d"),
]  # fmt: skip


def test_any_arguments_whatever(way):
    """Right arguments, of which some are replaced by others, also by those of other tensors."""
    k, done, refused = cpu._kernel, 0, 0
    for seed in seeds(30_000):
        cases = [Case(seed), Case(seed + 1_000_000)]
        tables = [describe(c.tensors, c.cells) for c in cases]
        rng = cases[0].rng
        odd = [*ODD, cpu._exchange_api(), *(t.pieces for t in tables)]
        odd += [array("d", bytes(8 * n)) for t in tables for n in (t.slots, t.cells)]
        for _ in range(40):
            table, threads = rng.choice(tables), rng.choice([1, 2, 9, 1000])
            slots, cells = (array("d", [rng.gauss(0, 1)]) * n for n in (table.slots, table.cells))
            part = rng.randrange(3), 3, threads
            p = rng.choice([1, 2, math.inf])
            call, args = rng.choice([
                (k.measure, [table.pieces, slots, p, *part]), (k.join, [table.pieces, slots, cells, p]),
                (k.scale, [table.pieces, cells, *part]), (k.limit, [table.pieces, cells, cells[:], p, *part]),
                (k.clamp, [table.pieces, slots, -1.0, 1.0, *part]),
                (k.describe, [cases[0].tensors, None, cpu._TYPES, cpu._exchange_api()]),
                (k.reshaped, [cases[0].tensors, (), cpu._TYPES, cpu._exchange_api()]),
            ])  # fmt: skip
            args = [rng.choice(odd) if rng.random() < 0.15 else arg for arg in args]
            try:
                call(*args[: len(args) - (rng.random() < 0.02)])
                done += 1
            except (ValueError, TypeError):
                refused += 1
        for made, _, _, there in [each for case in cases for each in case.each()]:
            if made is not None:
                made.assert_is(made.tensor.clone() if there else None)  # nothing beside the tensors
    assert done > 100
    assert refused > 100
