"""The comparisons of the oracle tests fail on garbage."""

from __future__ import annotations

import math

import pytest
import torch

from tests.oracles.support import (
    Difference,
    assert_differs,
    assert_result,
    assert_same_as_torch,
    parameters_of,
    plain,
    result_of,
    sample,
)

GARBAGE = {
    "another number": ([1.0, 2.0], [1.0, 2.1]),
    "a little off": (1.0, 1.0 + 2e-6),
    "nothing for zero": (1e-300, 0.0),
    "another sign": ([-1.0], [1.0]),
    "NaN for a number": ([math.nan], [1.0]),
    "a number for NaN": ([1.0], [math.nan]),
    "a large number for Inf": (1e308, math.inf),
    "the other Inf": (-math.inf, math.inf),
    "one item missing": ([1.0], [1.0, 1.0]),
    "one item more": ([[1.0, 1.0]], [[1.0]]),
    "a number for a list": (1.0, [1.0]),
    "a list for a number": ([1.0], 1.0),
    "None for a number": ([None], [0.0]),
    "a number for None": ([0.0], [None]),
    "an error for a number": (ValueError, 1.0),
    "a number for an error": (1.0, ValueError),
    "another error": (TypeError, ValueError),
    "a NaN imaginary part": (complex(1, math.nan), 1 + 0j),
    "the imaginary part": (1 + 1j, 1 + 2j),
    "Inf for a number": ([math.inf], [1.0]),
}


@pytest.mark.parametrize("case", GARBAGE)
def test_assert_result_fails_on_garbage(case):
    got, want = GARBAGE[case]
    with pytest.raises(AssertionError):
        assert_result(got, want)


@pytest.mark.parametrize("good", [1.0, [1.0, [math.nan, math.inf]], None, [None, 2], ValueError, 1 + 2j])
def test_assert_result_passes_on_the_same(good):
    assert_result(good, good)


def _double(side):
    if side == "broken":
        raise ValueError
    return [2.0 * side]


@pytest.mark.parametrize(
    ("theirs", "ours", "their_side", "our_side"),
    [
        ([2.0], [4.0], 1.5, 2.0),  # they do not do what the table says
        ([2.0], [4.0], 1.0, 1.0),  # we do not
        ([2.0], [2.0], 1.0, 1.0),  # the table says no difference
        ([2.0], ValueError, 1.0, 1.0),
        (ValueError, [2.0], 1.0, 1.0),
    ],
)
def test_assert_differs_fails_on_garbage(theirs, ours, their_side, our_side):
    with pytest.raises(AssertionError):
        assert_differs(Difference("garbage", _double, theirs, ours), their_side, our_side)


def test_assert_differs_passes_on_a_difference():
    assert_differs(Difference("number", _double, theirs=[2.0], ours=[4.0]), 1.0, 2.0)
    assert_differs(Difference("error", _double, theirs=ValueError, ours=[4.0]), "broken", 2.0)


def _only_torch(action):
    return lambda module, parameters: action(parameters[0]) if module is torch.nn.utils else None


@pytest.mark.parametrize(
    "action", [lambda p: 1.0, lambda p: p.grad.mul_(2), lambda p: {}["missing"], lambda p: setattr(p, "grad", None)]
)
def test_assert_same_as_torch_fails_on_garbage(action):
    with pytest.raises(AssertionError):
        assert_same_as_torch([[1.0, 2.0]], _only_torch(action))


def test_assert_same_as_torch_passes_on_the_same():
    assert assert_same_as_torch([[1.0, 2.0]], lambda m, ps: ps[0].grad.mul_(2).sum()) == [6.0, [[2.0, 4.0]]]


def test_result_of_names_the_error_and_flattens_values():
    assert result_of(lambda: {}["missing"]) is KeyError
    assert result_of(lambda: (torch.ones(2), None)) == [[1.0, 1.0], None]


def test_the_sample_is_exact_in_float32_and_parameters_keep_it():
    grads = sample()
    assert all((g.astype("float32") == g).all() for g in grads)
    assert plain([p.grad for p in parameters_of(grads)]) == plain(grads)
    assert parameters_of([None])[0].grad is None
