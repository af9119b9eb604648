"""What must hold for any gradients at all."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import gradclip
from gradclip.norms import as_norm
from tests import reference
from tests.support import numpy_of

ULP = {torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7, torch.float64: 2.0**-52}
SUMS = 1e-14
"""What float64 sums of a few hundred numbers lose to rounding, whichever way they are added up."""
# Relative rounding is what these bounds are about, so gradients stay clear of the numbers their dtype cannot hold exactly.
SCALES = {torch.float64: 150, torch.float32: 25, torch.bfloat16: 25, torch.float16: 1}

dtypes = st.sampled_from(list(ULP))
shapes = st.lists(st.lists(st.integers(0, 5), min_size=0, max_size=3).map(tuple), min_size=1, max_size=5)
seeds = st.integers(0, 2**31)
norms = st.sampled_from([1.0, 2.0, 3.0, math.inf, "rms"])


def made(shapes, dtype, seed, exponent=0.0):
    """Parameters with normal gradients, scaled by a power of ten."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for shape in shapes:
        parameter = nn.Parameter(torch.ones(shape, dtype=dtype))
        parameter.grad = (torch.randn(shape, generator=generator, dtype=torch.float64) * 10.0**exponent).to(dtype)
        found.append(parameter)
    return found


def flat(parameters) -> np.ndarray:
    return np.concatenate([numpy_of(p.grad).ravel() for p in parameters])


def measured(parameters, norm) -> float:
    return reference.norm_of(flat(parameters), as_norm(norm))


@st.composite
def cases(draw):
    dtype = draw(dtypes)
    exponent = draw(st.floats(-1, 1)) * SCALES[dtype]
    return made(draw(shapes), dtype, draw(seeds), exponent), dtype, 10.0 ** (exponent + draw(st.floats(-1, 1)))


@given(cases(), norms)
def test_the_bound_holds(case, norm):
    """After hard clipping the norm, measured in float64, is at most T (1 + 4 ulp of the dtype)."""
    parameters, dtype, threshold = case
    tiny = 4 * float(torch.finfo(dtype).smallest_normal)
    gradclip.clip_(parameters, gradclip.global_norm(threshold, norm=norm))
    assert measured(parameters, norm) <= threshold * (1 + 4 * ULP[dtype]) * (1 + SUMS) + tiny


@given(cases(), norms)
def test_direction_is_kept(case, norm):
    """Norm clipping multiplies everything by one number."""
    parameters, dtype, threshold = case
    before = flat(parameters)
    result = gradclip.clip_(parameters, gradclip.global_norm(threshold, norm=norm))
    tiny = float(torch.finfo(dtype).smallest_normal)
    np.testing.assert_allclose(flat(parameters), before * float(result.coefficient), rtol=ULP[dtype], atol=tiny)


@given(cases(), st.sampled_from(["global_norm", "tensor_norm", "block_rms", "value"]))
def test_below_the_threshold_every_bit_stays(case, recipe):
    parameters, _, _ = case
    before = [p.grad.clone() for p in parameters]
    largest = float(np.abs(flat(parameters)).sum()) * 1.0001 + 1e-300
    result = gradclip.clip_(parameters, gradclip.parse(f"{recipe}:{largest}"))
    assert not bool(result.clipped)
    assert float(result.coefficient) == 1.0
    for parameter, was in zip(parameters, before, strict=True):
        assert numpy_of(parameter.grad).tobytes() == numpy_of(was).tobytes()


@given(cases(), norms)
def test_clipping_twice_is_clipping_once(case, norm):
    """To rounding: a second pass can only mend the last place of the first."""
    parameters, dtype, threshold = case
    gradclip.clip_(parameters, gradclip.global_norm(threshold, norm=norm))
    once = flat(parameters)
    gradclip.clip_(parameters, gradclip.global_norm(threshold, norm=norm))
    np.testing.assert_allclose(
        flat(parameters), once, rtol=2 * ULP[dtype] + SUMS, atol=float(torch.finfo(dtype).smallest_normal)
    )


@given(cases())
def test_clipping_values_twice_changes_nothing(case):
    parameters, _, bound = case
    gradclip.clip_(parameters, gradclip.value(bound))
    once = flat(parameters)
    assert not bool(gradclip.clip_(parameters, gradclip.value(bound * (1 + 2**-7))).clipped)
    np.testing.assert_array_equal(flat(parameters), once)


@given(cases(), norms, seeds)
def test_order_does_not_matter(case, norm, seed):
    parameters, _, _ = case
    shuffled = [parameters[i] for i in np.random.default_rng(seed).permutation(len(parameters))]
    one, other = (float(gradclip.clip_(p, gradclip.global_norm(math.inf, norm=norm)).norm) for p in (parameters, shuffled))
    assert one == pytest.approx(other, rel=1e-12)


@given(st.integers(1, 400), st.lists(st.integers(0, 400), max_size=5), dtypes, seeds, norms)
def test_how_tensors_are_split_does_not_matter(size, cuts, dtype, seed, norm):
    (whole,) = made([(size,)], dtype, seed)
    edges = sorted({0, size, *(min(c, size) for c in cuts)})
    parts = [nn.Parameter(torch.ones(b - a, dtype=dtype)) for a, b in pairwise(edges)]
    for part, a, b in zip(parts, edges, edges[1:], strict=False):
        part.grad = whole.grad[a:b].clone()
    threshold = 0.1
    one = gradclip.clip_([whole], gradclip.global_norm(threshold, norm=norm))
    other = gradclip.clip_(parts, gradclip.global_norm(threshold, norm=norm))
    assert float(one.norm) == pytest.approx(float(other.norm), rel=1e-6)
    np.testing.assert_allclose(
        flat(parts), flat([whole]), rtol=2 * ULP[dtype] + SUMS, atol=float(torch.finfo(dtype).smallest_normal)
    )


@given(cases(), st.floats(0.1, 10))
def test_soft_stays_below_and_keeps_order(case, share):
    """1/(1 + r) never reaches the threshold."""
    parameters, dtype, threshold = case
    before = measured(parameters, 2)
    result = gradclip.clip_(parameters, gradclip.normalize(threshold * share, soft=True))
    assert float(result.clipped_norm) <= min(before, threshold * share) * (1 + 1e-9)
    assert measured(parameters, 2) == pytest.approx(float(result.clipped_norm), rel=2 * ULP[dtype], abs=1e-40)


@given(cases())
def test_normalising_reaches_the_threshold(case):
    parameters, dtype, threshold = case
    before = measured(parameters, 2)
    gradclip.clip_(parameters, gradclip.normalize(threshold))
    after = measured(parameters, 2)
    assert after == (0 if before == 0 else pytest.approx(threshold, rel=2 * ULP[dtype] + SUMS))


@given(cases(), st.sampled_from(["global_norm:1e-3", "tensor_norm:1e-3", "value:1e-3", "agc:0.01", "normalize:1e-3"]))
def test_a_copy_equals_in_place_and_leaves_the_original(case, spelling):
    parameters, _, _ = case
    originals = [p.grad.clone() for p in parameters]
    copies = gradclip.clip([p.grad for p in parameters], spelling, params=parameters)
    assert all(torch.equal(p.grad, o) for p, o in zip(parameters, originals, strict=True))
    gradclip.clip_(parameters, spelling)
    assert all(torch.equal(p.grad, c) for p, c in zip(parameters, copies, strict=True))
    assert all(p.grad.data_ptr() != c.data_ptr() or p.numel() == 0 for p, c in zip(parameters, copies, strict=True))


spellable = st.one_of(
    st.builds(gradclip.global_norm, st.floats(1e-6, 1e6), norm=norms, nonfinite=st.sampled_from(["skip", "zero"])),
    st.builds(gradclip.value, st.floats(-10, -1e-3), st.floats(1e-3, 10)),
    st.builds(
        gradclip.agc,
        st.floats(1e-6, 1),
        st.floats(1e-6, 1),
        exclude=st.sampled_from([(), ("head.*", "*.bias"), ("1",), ("inf", "true")]),
    ),
    st.builds(gradclip.group_norm, st.dictionaries(st.sampled_from(["a.*", "b.*", "*"]), st.floats(1e-3, 10), min_size=1)),
    st.builds(
        gradclip.normalize, st.builds(gradclip.Cosine, st.floats(1, 2), st.floats(1, 2), st.integers(1, 99)), soft=st.booleans()
    ),
    st.builds(
        gradclip.Clipping,
        st.sampled_from([gradclip.Global(), gradclip.PerUnit(("x*",), -1), gradclip.PerElement()]),
        st.builds(gradclip.Norm, st.floats(0.1, 10)),
        st.sampled_from([gradclip.Relative(0.1), gradclip.Linear(2, 1, 5), gradclip.Constant(math.inf)]),
        st.sampled_from(
            [gradclip.Hard(), gradclip.Soft(), gradclip.Soft(2), gradclip.Drop(), gradclip.Band(0.3), gradclip.Normalize()]
        ),
        st.sampled_from([gradclip.Skip(3), gradclip.Raise(), gradclip.Zero(), gradclip.Propagate()]),
    ),
)


@given(spellable)
def test_spelling_round_trips(clipping):
    assert gradclip.parse(str(clipping)) == clipping
    assert gradclip.parse(repr(clipping)) == clipping
    assert hash(gradclip.parse(str(clipping))) == hash(clipping)
