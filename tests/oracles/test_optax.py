"""Optax: ``clip``, ``clip_by_global_norm``, ``clip_by_block_rms`` and ``adaptive_grad_clip`` on the same gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gradclip
from tests.oracles.support import Difference, assert_differs, assert_result, clipped, plain, sample

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
jax.config.update("jax_enable_x64", True)

inf, nan = math.inf, math.nan
EXACT = {"float64": 1e-14, "float32": 1e-6}
THEIRS = {
    "global_norm": optax.clip_by_global_norm,
    "value": optax.clip,
    "block_rms": optax.clip_by_block_rms,
    "agc": optax.adaptive_grad_clip,
}
KERAS_SHAPES = ((5, 6), (6,), (3, 3, 2, 4), (), (2, 2, 2, 3, 4))
"""Inputs first, outputs last: a matrix, a bias, an HWIO filter, a scalar, a DHWIO filter."""


def _optax(grads, recipe, *arguments, weights=None):
    made = THEIRS[recipe](*arguments)
    arrays = [jax.numpy.asarray(g) for g in grads]
    params = None if weights is None else [jax.numpy.asarray(w) for w in weights]
    return plain(list(made.update(arrays, made.init(arrays), params)[0]))


def _ours(grads, recipe, *arguments, weights=None):
    """The recipe of the same name; AGC's units lie along the last axis, as in JAX."""
    options = {"axis": -1} if recipe == "agc" else {}
    return clipped(grads, getattr(gradclip, recipe)(*arguments, **options, nonfinite="propagate"), weights)


def _transposed(arrays):
    """Outputs first, as in PyTorch: (in, out) to (out, in), HWIO to OIHW."""
    return [np.moveaxis(np.moveaxis(np.asarray(a), -1, 0), -1, 1) if np.ndim(a) > 1 else a for a in arrays]


def test_transposing_makes_torch_layouts():
    assert [np.shape(a) for a in _transposed(sample(shapes=KERAS_SHAPES))] == [(6, 5), (6,), (4, 2, 3, 3), (), (4, 3, 2, 2, 2)]
    weight = np.arange(6.0).reshape(2, 3)
    assert _transposed([weight])[0].tolist() == weight.T.tolist()


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("scale", [0.01, 1.0, 1000.0])
@pytest.mark.parametrize("threshold", [0.05, 1.0, 3.0, 40.0])
@pytest.mark.parametrize("recipe", ["global_norm", "value", "block_rms"])
def test_clips_the_same(recipe, threshold, scale, dtype):
    grads = [g.astype(dtype) for g in sample(scale=scale)]
    assert_result(_ours(grads, recipe, threshold), _optax(grads, recipe, threshold), EXACT[dtype])


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("weight_scale", [0.0, 1e-4, 1.0])
@pytest.mark.parametrize("arguments", [(0.01,), (0.5, 1e-3), (0.1, 1.0)], ids=str)
def test_agc_in_both_layouts(arguments, weight_scale, dtype):
    """On optax's own layout with ``axis=-1``, and on PyTorch's layout by default."""
    grads = [g.astype(dtype) for g in sample(1, shapes=KERAS_SHAPES)]
    weights = [(weight_scale * g).astype(dtype) for g in sample(2, shapes=KERAS_SHAPES)]
    want = _optax(grads, "agc", *arguments, weights=weights)
    assert_result(_ours(grads, "agc", *arguments, weights=weights), want, EXACT[dtype])
    turned = clipped(_transposed(grads), gradclip.agc(*arguments), _transposed(weights))
    assert_result(turned, plain(_transposed(want)), EXACT[dtype])


def _agc_of_the_paper(grad, weight, ratio, floor):
    """Equation 3 of Brock et al. 2021, one output unit (one row) after the other."""
    out = []
    for g, w in zip(grad, weight, strict=True):
        norm = math.sqrt(sum(x * x for x in g))
        largest = ratio * max(math.sqrt(sum(x * x for x in w)), floor)
        out.append([x * largest / norm for x in g] if norm > largest else list(g))
    return out


@pytest.mark.parametrize("ratio", [0.01, 0.5, 2.0])
def test_agc_is_the_papers_formula(ratio):
    grad, weight = sample(3, shapes=((8, 5), (8, 5)))
    weight[2] = 0.0
    grad[3] *= 1e-3
    want = _agc_of_the_paper(grad.tolist(), weight.tolist(), ratio, 1e-3)
    assert_result(clipped([grad], gradclip.agc(ratio), [weight]), [want], 1e-14)
    assert_result(_optax([grad.T], "agc", ratio, weights=[weight.T]), plain([np.array(want).T]), 1e-14)


def test_the_papers_formula_by_hand():
    """Norm 5 against 0.5 * 2 = 1 is scaled by 1/5; norm 0.5 stays; a zero row may have 0.5 * 0.1."""
    got = _agc_of_the_paper([[3.0, 4.0], [0.3, 0.4], [0.0, 1.0]], [[0.0, 2.0], [2.0, 0.0], [0.0, 0.0]], 0.5, 0.1)
    assert got == [[pytest.approx(0.6), pytest.approx(0.8)], [0.3, 0.4], [0.0, 0.05]]


@pytest.mark.parametrize("bad", [nan, inf, -inf])
@pytest.mark.parametrize("recipe", ["global_norm", "value", "block_rms"])
def test_nonfinite_gradients_spread_the_same(recipe, bad):
    """A NaN norm makes its block NaN; an infinite one makes finite elements 0; ``nonfinite="propagate"`` asks for it."""
    grads = [np.array([bad, 5.0]), np.array([3.0, 4.0])]
    assert_result(_ours(grads, recipe, 1.0), _optax(grads, recipe, 1.0))


@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_nonfinite_units_spread_the_same(bad):
    grads, weights = [np.array([[bad, 5.0], [1.0, 2.0]])], [np.ones((2, 2))]
    assert_result(_ours(grads, "agc", 0.1, weights=weights), _optax(grads, "agc", 0.1, weights=weights))


def _case(grads, recipe, *arguments, weights=None):
    return lambda side: side([np.asarray(g) for g in grads], recipe, *arguments, weights=weights)


def _bits_at_the_threshold(recipe, arguments, weights=None):
    """Whether a gradient exactly at its limit keeps every bit."""
    grads = [np.array([0.1, 0.2, 0.3, 0.7, 0.9])]
    limit = float(np.linalg.norm(grads[0]))
    return lambda side: side(grads, recipe, *arguments(limit), weights=weights) == plain(grads)


HUGE = np.array([3e20, 4e20], dtype="float32")
ROW = np.array([[3.0, 4.0]])
DIFFERENCES = [
    # A threshold of 0 zeroes in optax, a negative one turns gradients around; here both are a mistake.
    *(Difference(f"{recipe} 0", _case([[3.0, 4.0]], recipe, 0.0), theirs=theirs, ours=ValueError)
      for recipe, theirs in [("global_norm", [[0.0, 0.0]]), ("value", [[0.0, 0.0]]), ("block_rms", [[0.0, 0.0]])]),
    Difference("global_norm -1", _case([[3.0, 4.0]], "global_norm", -1.0), theirs=[[-0.6, -0.8]], ours=ValueError),
    Difference("block_rms -1", _case([[3.0, 4.0]], "block_rms", -1.0), theirs=[[3.0, 4.0]], ours=ValueError),
    Difference("agc without a floor", _case([ROW], "agc", 0.1, 0.0, weights=[0 * ROW]), theirs=[[[0.0, 0.0]]], ours=ValueError),
    # At the threshold optax multiplies by a number near 1; here every bit stays.
    Difference("bits at the global norm", _bits_at_the_threshold("global_norm", lambda n: (n,)), theirs=False, ours=True),
    # A large finite gradient is no infinite one.
    Difference("global_norm of 5e20", _case([HUGE], "global_norm", 1.0), theirs=[[0.0, 0.0]], ours=[[0.6, 0.8]]),
    Difference("block_rms of 5e20", _case([HUGE], "block_rms", 1.0), theirs=[[0.0, 0.0]], ours=[[0.72**0.5, 1.28**0.5]]),
    # optax takes a matrix of one row for a vector, hence for one unit; here axis -1 counts the units, two of them.
    Difference("AGC of one row", _case([ROW], "agc", 1.0, weights=[np.array([[0.0, 5.0]])]),
               theirs=[[[3.0, 4.0]]], ours=[[[0.001, 4.0]]]),
    # optax takes three axes for attention heads, a unit for each of the last two; here a unit is the last axis.
    Difference("AGC of three axes", _case([np.ones((2, 2, 1))], "agc", 1.0, weights=[np.array([[[0.0], [1.0]]] * 2)]),
               theirs=[[[[0.001 * 0.5**0.5], [1.0]]] * 2], ours=[[[[0.5**0.5]] * 2] * 2]),
    # optax divides by at least 1e-6, so a tinier gradient above a tinier limit ends below it.
    Difference("AGC below 1e-6", _case([[5e-7]], "agc", 1e-4, weights=[np.zeros(1)]), theirs=[[5e-8]], ours=[[1e-7]]),
]  # fmt: skip


@pytest.mark.parametrize("difference", DIFFERENCES, ids=str)
def test_differs_as_the_table_says(difference):
    assert_differs(difference, _optax, _ours)
