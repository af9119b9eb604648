"""What the kernel's functions are handed: anything that does not fit raises in words, and no memory is touched."""

from __future__ import annotations

import math
from array import array

import numpy as np
import pytest
import torch
from torch import nn

from gradclip.backends import cpu
from tests.backends.support import describe

pytestmark = pytest.mark.skipif(not cpu.enabled(), reason="the kernel was not built, or is switched off")

ONE = (0, 1, 1)  # all of the work, on one thread


def doubles(count):
    return array("d", bytes(8 * count))


def described(tensors, cells=None):
    """The pieces, and how many slots and cells there are."""
    return describe(tensors, cells)[1:4]


@pytest.mark.parametrize(
    ("shape", "cells"),
    [
        ((64, 3), 127),
        ((40, 3), 0),
        ((40, 3), -1),
        ((7,), 4),
        ((5,), 6),
        ((), 2),
        ((3,), 2**62),
        ((3,), 2**70),
        ((3,), -(2**70)),
    ],
)
def test_cells_that_do_not_divide_a_tensor(shape, cells):
    with pytest.raises(ValueError, match=r"cannot be cut into|cells\[0\] is negative, or there would be too many"):
        describe([torch.ones(shape)], [cells])


def test_too_many_cells_altogether():
    with pytest.raises(ValueError, match=r"cells\[15\] is negative, or there would be too many cells"):
        describe([None] * 40, [2**55] * 16 + [2**54] * 24)


@pytest.mark.parametrize("cells", [[], [1], [1, 1, 1]])
def test_a_number_of_cells_for_each_tensor(cells):
    with pytest.raises(ValueError, match="a number for each of the 2 tensors"):
        describe([torch.ones(2), None], cells)


@pytest.mark.parametrize("cells", [[1.0], [None], ["1"], [torch.tensor(1)]])
def test_cells_are_ints(cells):
    with pytest.raises(TypeError, match=r"cells\[0\] must be an int"):
        describe([torch.ones(2)], cells)


def test_an_empty_tensor_may_have_any_number_of_cells():
    table = describe([torch.ones(0, 3), torch.ones(3, 0), None, torch.ones(2)], [0, 3, 2, 1])
    np.testing.assert_allclose(table.norms(2), [0, 0, 0, 0, 0, math.sqrt(2)])


@pytest.mark.parametrize("items", [(torch.ones(1),), None, torch.ones(1)])
def test_tensors_come_as_a_list(items):
    with pytest.raises(TypeError):
        cpu._kernel.describe(items, None, cpu._TYPES, cpu._API)


@pytest.mark.skipif(cpu._API is None, reason="this PyTorch has no exchange API")
@pytest.mark.parametrize("types", [(int,), (torch.Tensor, int), (object(),)])
def test_types_that_the_exchange_api_does_not_read(types):
    """It would take any object for a tensor."""
    for call in (lambda: cpu._kernel.describe([1], None, types, cpu._API),
                 lambda: cpu._kernel.reshaped([1], ((),), types, cpu._API)):  # fmt: skip
        with pytest.raises(TypeError, match="__dlpack_c_exchange_api__"):
            call()


@pytest.mark.parametrize("api", [1, "dlpack_exchange_api", object()])
def test_an_api_that_is_none(api):
    with pytest.raises(ValueError, match="PyCapsule"):
        cpu._kernel.describe([], None, cpu._TYPES, api)


X = torch.ones(4)


@pytest.mark.parametrize(
    "fact",
    [(0, 4, 0), (X.data_ptr() + 1, 2, 0), (X.data_ptr(), -1, 0), (X.data_ptr(), 4, 4), (X.data_ptr(), 4, -1), (-8, 4, 0),
     (X.data_ptr(), 2**60, 0), (2**63 - 8, 4, 0), (X.data_ptr(), 2**64, 0)],
)  # fmt: skip
def test_facts_that_describe_no_tensor(fact):
    with pytest.raises(ValueError, match=r"no \(address, count, kind\)|too large"):
        cpu._kernel.describe([fact], None, cpu._TYPES, None)


@pytest.mark.parametrize("fact", [1, True, X, (), (1, 2), (1, 2, "3"), [X.data_ptr(), 4, 0]])
def test_facts_of_another_form(fact):
    with pytest.raises(TypeError):
        cpu._kernel.describe([fact], None, cpu._TYPES, None)


def calls(pieces, slots, cells, own_slots=..., own_cells=..., p=2.0, bounds=(-1.0, 1.0), share=ONE):
    """Every function that works on pieces, by name; ``own_...`` takes the place of every array of that length."""
    s = doubles(slots) if own_slots is ... else own_slots
    c = doubles(cells) if own_cells is ... else own_cells
    k = cpu._kernel
    return {
        "measure": lambda: k.measure(pieces, s, p, *share),
        "join": lambda: k.join(pieces, s, c, p),
        "scale": lambda: k.scale(pieces, c, *share),
        "limit": lambda: k.limit(pieces, c, doubles(cells), p, *share),
        "limit, out": lambda: k.limit(pieces, doubles(cells), c, p, *share),
        "clamp": lambda: k.clamp(pieces, s, *bounds, *share),
    }


OF_SLOTS, OF_CELLS = ("measure", "join", "clamp"), ("join", "scale", "limit", "limit, out")


def readonly(count):
    return memoryview(bytes(8 * count)).cast("d")


WRONG = {
    "too short": (lambda n: doubles(n - 1), "must have"),
    "too long": (lambda n: doubles(n + 1), "must have"),
    "empty": (lambda n: doubles(0), "must have"),
    "floats": (lambda n: array("f", bytes(8 * n)), "aligned doubles"),
    "int64": (lambda n: array("q", bytes(8 * n)), "aligned doubles"),
    "bytes": (lambda n: bytearray(8 * n), "aligned doubles"),
    "big-endian": (lambda n: np.zeros(n, ">f8"), "aligned doubles"),
    "complex": (lambda n: np.zeros(n // 2 + 1, complex), "aligned doubles"),
    "misaligned": (lambda n: memoryview(bytearray(8 * n + 9))[1 : 8 * n + 1].cast("d"), "aligned doubles"),
    "strided": (lambda n: np.zeros(2 * n)[::2], "one stretch of memory"),
    "no buffer": (lambda n: [0.0] * n, "must be an array of doubles"),
    "none": (lambda n: None, "must be an array of doubles"),
}


@pytest.fixture
def tensors():
    """Some with several pieces for a cell, and some with several cells for a piece."""
    return [torch.randn(300_000), torch.randn(6, 4), None, torch.randn(3).half()]


@pytest.mark.parametrize("wrong", WRONG)
def test_arrays_that_do_not_fit(tensors, wrong):
    make, words = WRONG[wrong]
    pieces, slots, cells = described(tensors, [2, 6, 1, 1])
    before = [None if t is None else t.clone() for t in tensors]
    for name in OF_SLOTS:
        with pytest.raises((ValueError, TypeError), match=words):
            calls(pieces, slots, cells, own_slots=make(slots))[name]()
    for name in OF_CELLS:
        with pytest.raises((ValueError, TypeError), match=words):
            calls(pieces, slots, cells, own_cells=make(cells))[name]()
    assert all(t is None or torch.equal(t, b) for t, b in zip(tensors, before, strict=True))


def test_arrays_that_are_written_must_be_writable(tensors):
    pieces, slots, cells = described(tensors)
    for name, own in (("measure", "own_slots"), ("clamp", "own_slots"), ("join", "own_cells"), ("limit, out", "own_cells")):
        with pytest.raises(ValueError, match="can be written"):
            calls(pieces, slots, cells, **{own: readonly(slots if own == "own_slots" else cells)})[name]()
    calls(pieces, slots, cells, own_cells=readonly(cells))["scale"]()  # those that are only read need not be
    assert not tensors[1].any()


@pytest.mark.parametrize("pieces", [b"", b"\0" * 48, bytes(range(96)), None, 1, cpu._API])
def test_pieces_that_describe_did_not_make(pieces):
    for call in calls(pieces, 1, 1).values():
        with pytest.raises(TypeError, match=r"what describe\(\) returned"):
            call()


@pytest.mark.parametrize("share", [(-1, 1, 1), (1, 1, 1), (0, 0, 1), (0, -1, 1), (0, 1, 0), (0, 1, -1), (2**70, 1, 1)])
def test_shares_that_are_none(tensors, share):
    for name, call in calls(*described(tensors), share=share).items():
        if name != "join":
            with pytest.raises(ValueError, match=r"part must be one of 0 to parts - 1|too large"):
                call()


@pytest.mark.parametrize("share", [(0, 1, 2**31), (0, 1, 2**40), (0, 1, 2**62)])
def test_more_threads_than_there_is_work_for(tensors, share):
    pieces, slots, cells = described(tensors)
    found = doubles(slots)
    calls(pieces, slots, cells, own_slots=found, share=share)["measure"]()
    assert max(found) > 0


def test_many_parts_leave_out_nothing(tensors):
    """More than there are pieces, and more than 32 bits can count."""
    pieces, slots, cells = described(tensors)
    whole, parts = doubles(slots), doubles(slots)
    calls(pieces, slots, cells, own_slots=whole)["measure"]()
    for part in range(50):
        calls(pieces, slots, cells, own_slots=parts, share=(part, 50, 3))["measure"]()
    assert whole == parts
    first = doubles(slots)
    calls(pieces, slots, cells, own_slots=first, share=(0, 2**40, 3))["measure"]()
    assert first[0] == whole[0] > 0
    assert not any(first[1:])


@pytest.mark.parametrize("p", [0.0, 3.0, -1.0, math.nan, -math.inf])
def test_norms_that_it_does_not_measure(tensors, p):
    for name, call in calls(*described(tensors), p=p).items():
        if name not in ("scale", "clamp"):
            with pytest.raises(ValueError, match="p of 1, 2 and inf"):
                call()


@pytest.mark.parametrize("bounds", [(1.0, -1.0), (math.nan, 1.0), (-1.0, math.nan)])
def test_bounds_that_are_none(tensors, bounds):
    with pytest.raises(ValueError, match="low must not be above high"):
        calls(*described(tensors), bounds=bounds)["clamp"]()


def test_numbers_of_another_type(tensors):
    pieces, slots, cells = described(tensors)
    for wrong in ({"share": (0, 1, 1.5)}, {"share": ("0", 1, 1)}, {"p": "2", "bounds": (None, 1.0)}):
        made = calls(pieces, slots, cells, **wrong)
        for name in ("measure", "limit", "clamp"):
            with pytest.raises(TypeError):
                made[name]()


def test_clamping_units_tells_the_largest_of_each():
    x = torch.tensor([[0.5, -3.0], [0.1, 0.2], [9.0, math.nan]])
    largest, changed = describe([x], [3]).clamp(-1.0, 2.0)
    assert changed
    np.testing.assert_allclose(largest, [3.0, 0.2, math.nan], rtol=1e-6)
    np.testing.assert_allclose(x, [[0.5, -1.0], [0.1, 0.2], [2.0, math.nan]], rtol=1e-6)


@pytest.mark.parametrize("attribute", [None, "_kernel", "_API"])
def test_which_tensors_have_another_shape(monkeypatch, attribute):
    if attribute is not None:
        monkeypatch.setattr(cpu, attribute, None)
    tensors = [torch.ones(2, 3), None, torch.ones(()), torch.eye(4).to_sparse(), torch.ones(0, 5), nn.Parameter(torch.ones(3)),
               torch.ones(2, 3).t(), torch.ones(3).as_subclass(type("Special", (torch.Tensor,), {}))]  # fmt: skip
    shapes = [(2, 3), (9,), (), (4, 4), (0, 5), (3,), (3, 2), (3,)]
    assert cpu.reshaped(tensors, shapes) == []
    assert cpu.reshaped(tensors, [(3, 2), (9,), (1,), (4, 5), (5, 0), (3, 1), (2, 3), (4,)]) == [0, 2, 3, 4, 5, 6, 7]


def test_shapes_for_each_tensor():
    if cpu._API is None:
        pytest.skip("this PyTorch has no exchange API")
    for shapes, error in (
        ((), ValueError),
        ((3,), TypeError),
        (("a",), TypeError),
        ((("a",),), TypeError),
        (((2**70,),), ValueError),
    ):
        with pytest.raises(error):
            cpu._kernel.reshaped([torch.ones(3)], shapes, cpu._TYPES, cpu._API)
