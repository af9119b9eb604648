"""``Soft(k)`` beside its formula in decimals of 60 digits, from the least ratio to the largest, in every array library."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import gradclip

RATIOS = [0.0, 1e-300, 1e-9, 0.1, 0.999, 1.0, 1.001, 3.0, 1e9, 1e300]
POWERS = [0.5, 1, 2, 3, 8]


def formula(ratio: float, k: float) -> float:
    with localcontext() as context:
        context.prec, context.Emin, context.Emax = 60, -(10**6), 10**6
        return float((1 + Decimal(ratio) ** Decimal(k)) ** (-1 / Decimal(k)))


@pytest.mark.parametrize("k", POWERS)
def test_it_is_the_formula(k):
    want = [formula(ratio, k) for ratio in RATIOS]
    assert min(want) > 0
    norms = np.array(RATIOS)
    np.testing.assert_allclose(gradclip.Soft(k).factors(norms, 1.0), want, rtol=1e-14)
    np.testing.assert_allclose(gradclip.Soft(k).factors(4 * norms, np.full(len(RATIOS), 4.0)), want, rtol=1e-14)
    np.testing.assert_allclose(gradclip.Soft(k).factors(torch.from_numpy(norms), 1.0).numpy(), want, rtol=1e-14)


@pytest.mark.parametrize("k", POWERS)
@pytest.mark.parametrize("array", [jnp.asarray, lambda r: torch.tensor(r, dtype=torch.float32)], ids=["jax", "torch"])
def test_in_float32(k, array):
    ratios = [1e-30, 1e-3, 0.5, 1.0, 2.0, 1e3, 1e30]
    want = [formula(float(np.float32(ratio)), k) for ratio in ratios]
    np.testing.assert_allclose(np.asarray(gradclip.Soft(k).factors(array(ratios), 1.0)), want, rtol=1e-6)


def test_the_known_values():
    """k = 1: Zhang et al. 2020; k = 2: SPECTRA, ``1 / sqrt(1 + r^2)``; the larger k, the nearer to ``Hard``."""
    norms = np.array(RATIOS)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(gradclip.Soft().factors(norms, 2.0), 1 / (1 + norms / 2))
    np.testing.assert_allclose(gradclip.Soft(2).factors(norms, 2.0), 1 / np.hypot(1, norms / 2), rtol=1e-15)
    hard = gradclip.Hard().factors(norms, 2.0)
    apart = [np.abs(gradclip.Soft(k).factors(norms, 2.0) - hard).max() for k in (1, 2, 8, 64, 4096)]
    assert apart == sorted(apart, reverse=True)
    assert apart[-1] < 2e-4


@pytest.mark.parametrize("k", POWERS)
def test_what_is_not_finite(k):
    """A limit of inf only measures; an infinite norm has a factor of 0, so that inf * 0 is NaN; a NaN stays one."""
    factors = gradclip.Soft(k).factors(np.array([3.0, math.inf, math.nan]), np.array([math.inf, 1.0, 1.0]))
    assert factors[:2].tolist() == [1.0, 0.0]
    assert math.isnan(factors[2])


@pytest.mark.parametrize("k", [math.inf, 0, -1])
def test_hard_is_written_in_one_way(k):
    with pytest.raises(ValueError, match=r"must be > 0 and finite.*write Hard\(\)"):
        gradclip.Soft(k)


@pytest.mark.parametrize(
    ("clipping", "spelling"),
    [
        (gradclip.normalize(soft=True), "normalize:soft=true"),
        (gradclip.normalize(soft=1), "normalize:soft=true"),
        (gradclip.normalize(0.5, soft=2), "normalize:0.5,soft=2.0"),
        (gradclip.normalize(norm=1, soft=0.5), "normalize:norm=1,soft=0.5"),
        (gradclip.normalize(soft=False), "normalize"),
        (gradclip.Clipping(rescale=gradclip.Soft(3)), "normalize:soft=3.0"),
    ],
)
def test_its_spelling(clipping, spelling):
    assert str(clipping) == spelling
    assert gradclip.parse(spelling) == clipping == gradclip.parse(repr(clipping))
