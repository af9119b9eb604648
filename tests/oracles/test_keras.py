"""Keras 3: what its optimizers subtract with ``clipnorm``, ``global_clipnorm`` and ``clipvalue``, and what we say."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gradclip
from tests.oracles.support import Difference, assert_differs, assert_result, clipped, plain, sample

keras = pytest.importorskip("keras")

inf, nan = math.inf, math.nan
RECIPES = {"clipnorm": gradclip.tensor_norm, "global_clipnorm": gradclip.global_norm, "clipvalue": gradclip.value}


def _keras(grads, **options):
    """What plain gradient descent with learning rate 1 subtracts from variables that are zero."""
    optimizer = keras.optimizers.SGD(learning_rate=1.0, **options)
    variables = [keras.Variable(np.zeros(np.shape(g)), dtype=np.asarray(g).dtype.name) for g in grads]
    optimizer.apply([keras.ops.convert_to_tensor(np.asarray(g)) for g in grads], variables)
    return [plain(-v.value) for v in variables]


def _ours(grads, **options):
    """The same by the recipe that stands for the option."""
    ((option, threshold),) = options.items()
    return clipped(grads, RECIPES[option](threshold, nonfinite="propagate"))


def test_the_oracle_is_keras_3_on_pytorch():
    assert keras.__version__.startswith("3.")
    assert keras.backend.backend() == "torch"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("scale", [0.01, 1.0, 1000.0])
@pytest.mark.parametrize("threshold", [0.05, 1.0, 3.0, 40.0])
@pytest.mark.parametrize("option", RECIPES)
def test_clips_the_same(option, threshold, scale, dtype):
    """In float64 too, up to what Keras itself rounds to float32 on the way."""
    grads = [g.astype(dtype) for g in sample(scale=scale)]
    want = _keras(grads, **{option: threshold})
    assert_result(_ours(grads, **{option: threshold}), want, rtol=1e-7 if dtype == "float64" else 1e-6)


@pytest.mark.parametrize("option", RECIPES)
def test_some_tensors_are_clipped_and_some_are_not(option):
    """The thresholds above lie between the tensors' sizes, so that the agreement says something."""
    grads = sample()
    after = [np.asarray(g) for g in _ours(grads, **{option: 1.26})]
    untouched = [bool((a == g).all()) for a, g in zip(after, grads, strict=True)]
    assert any(untouched) == (option != "global_clipnorm")
    assert not all(untouched)


@pytest.mark.parametrize("option", RECIPES)
def test_zero_gradients_stay_zero(option):
    zeros = [np.zeros((2, 2)), np.zeros(3)]
    want = _keras(zeros, **{option: 1.0})
    assert want == [[[0, 0], [0, 0]], [0, 0, 0]]
    assert_result(_ours(zeros, **{option: 1.0}), want)


@pytest.mark.parametrize("option", RECIPES)
def test_a_gradient_at_the_threshold_stays(option):
    grads = [np.array([3.0, -4.0])]
    threshold = 4.0 if option == "clipvalue" else 5.0
    assert _keras(grads, **{option: threshold}) == _ours(grads, **{option: threshold}) == [[3.0, -4.0]]


@pytest.mark.parametrize("option", RECIPES)
def test_nan_spreads_the_same_where_it_may(option):
    """Within the tensor, over all tensors, not at all; ``nonfinite="propagate"`` asks for it."""
    grads = [np.array([nan, 5.0]), np.array([3.0, 4.0])]
    want = _keras(grads, **{option: 1.0})
    assert_result(_ours(grads, **{option: 1.0}), want)
    assert np.isnan(want[1]).all() == (option == "global_clipnorm")


def _case(grads, **options):
    return lambda side: side([np.asarray(g) for g in grads], **options)


def _unchanged(threshold):
    """Whether a gradient below the threshold keeps every bit."""
    grads = [g / 10 for g in sample(shapes=((40,),))]
    return lambda side: bool((np.asarray(side(grads, clipnorm=threshold)[0]) == grads[0]).all())


def _skipped(side):
    grads = [np.array([nan, 5.0]), np.array([3.0, 4.0])]
    return side(grads, clipnorm=1.0) if side is _keras else clipped(grads, "tensor_norm:1")


HUGE = np.array([3e20, 4e20], dtype="float32")
DIFFERENCES = [
    *(
        Difference(f"{option} {off}", _case([[3.0, 4.0]], **{option: off}), theirs=[[3.0, 4.0]], ours=ValueError)
        for option in RECIPES
        for off in (0.0, -1.0)  # off in Keras; a mistake here
    ),
    # Keras measures with an infinite threshold, and gets inf / inf; here it means to measure only.
    Difference("clipnorm inf", _case([[3.0, 4.0]], clipnorm=inf), theirs=[[nan, nan]], ours=[[3.0, 4.0]]),
    Difference("global_clipnorm inf", _case([[3.0, 4.0]], global_clipnorm=inf), theirs=[[nan, nan]], ours=[[3.0, 4.0]]),
    # A large finite gradient is no infinite one.
    Difference("clipnorm of 5e20", _case([HUGE], clipnorm=1.0), theirs=[[0.0, 0.0]], ours=[[0.6, 0.8]]),
    Difference("global_clipnorm of 5e20", _case([HUGE], global_clipnorm=1.0), theirs=[[nan, nan]], ours=[[0.6, 0.8]]),
    # An infinite element: Keras makes everything NaN; here finite elements become 0, as in torch and optax.
    Difference("global_clipnorm of inf", _case([[inf, 1.0], [2.0]], global_clipnorm=1.0),
               theirs=[[nan, nan], [nan]], ours=[[nan, 0.0], [0.0]]),
    # What is below the threshold keeps every bit; Keras multiplies by the threshold and divides by it again.
    Difference("bits below clipnorm 3", _unchanged(3.0), theirs=False, ours=True),
    # The default policy drops the step instead.
    Difference("NaN by default", _skipped, theirs=[[nan, nan], [0.6, 0.8]], ours=[None, None]),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:gradclip skipped a step:RuntimeWarning")
@pytest.mark.parametrize("difference", DIFFERENCES, ids=str)
def test_differs_as_the_table_says(difference):
    assert_differs(difference, _keras, _ours)


def test_only_one_option_may_be_set():
    with pytest.raises(ValueError, match="Only one of"):
        keras.optimizers.SGD(1.0, clipnorm=1.0, clipvalue=1.0)
