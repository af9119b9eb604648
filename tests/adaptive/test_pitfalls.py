"""What goes wrong in adaptive clipping elsewhere, and must not here."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradclip import Band, thresholds
from gradclip.thresholds import Context
from tests.adaptive.support import DEFAULTS, LOSES_THE_SCALE, PER_BLOCK, RULES, moves, run, run_numpy, spiky_norms


def states_equal(one, other) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("rule", [thresholds.Quantile(0.95, 500), thresholds.Percentile(95)], ids=repr)
def test_a_quantile_can_fall(rule):
    """An estimate that only rises stays at the first spike: 16,360 for a true 95th percentile of 2.28."""
    norms = np.exp(0.5 * np.random.default_rng(0).standard_normal((3000, 1)))
    norms[:20] = 1e5
    true = np.quantile(norms[-501:-1] if isinstance(rule, thresholds.Quantile) else norms, 0.95)
    assert run_numpy(rule, norms)[-1] == pytest.approx(true, rel=0.011)
    assert true < 3


@pytest.mark.parametrize(
    "rule", [thresholds.Ema(), thresholds.EmaRatio(), thresholds.Growth(), thresholds.ZScore(), thresholds.Outlier()], ids=repr
)
def test_a_limit_follows_a_norm_that_falls(rule):
    norms = np.geomspace(1, 1e-3, 2000)[:, None] * np.exp(0.1 * np.random.default_rng(0).standard_normal((2000, 1)))
    state = run(rule, norms)[1]
    limits, _ = rule.limits(norms[-1] * 1e3, state, Context(2000))
    assert limits < 0.05


@pytest.mark.parametrize("blocks", [1, 50])
def test_the_warm_up_counts_steps_not_tensors(blocks):
    norms = np.full((30, blocks), 0.5 / np.sqrt(blocks))
    norms[9] *= 100
    limits = run_numpy(thresholds.EmaRatio(warmup=10), norms)
    np.testing.assert_allclose(np.linalg.norm(limits[9]), 1.0)  # the tenth step: all together to 1
    np.testing.assert_allclose(limits[10], 1.04 * norms[0])  # the eleventh: each to its own
    assert np.isinf(run_numpy(thresholds.ZScore(warmup=10), norms)[:10]).all()
    assert np.isinf(run_numpy(thresholds.SecondMoment(warmup=10), norms)[:10]).all()
    assert not np.isinf(run_numpy(thresholds.SecondMoment(warmup=10), norms)[10:]).any()


def test_small_gradients_are_not_blown_up():
    """A band lifts what is below it, but no more than tenfold: 1e-6 after norms of 1 stays below 1e-5."""
    rule, rescale = thresholds.Ema(), Band(0.5)
    state = run(rule, np.ones((100, 1)))[1]
    tiny = np.array([1e-6])
    limits, _ = rule.limits(tiny, state, Context(100))
    assert limits * 0.5 / tiny > 7000
    assert rescale.factors(tiny, limits) == 10
    assert Band(0.5, max_gain=1).factors(tiny, limits) == 1


@pytest.mark.parametrize("rule", [r for r in RULES if not isinstance(r, LOSES_THE_SCALE)], ids=repr)
def test_a_block_that_comes_late_has_its_own_first_step(rule):
    """Frozen for 150 steps, then thawed: there is nothing to hold its norm against, and certainly not 0."""
    norms = spiky_norms(151, 2, zeros=0) / 10
    norms[-1, 0] = 0.0
    norms[:-1, 1] = 0.0
    assert run_numpy(rule, norms)[-1, 1] >= norms[-1, 1] * 0.99


@pytest.mark.parametrize("size", [1e-10, 1e-3, 0.5])
@pytest.mark.parametrize("rule", [r for r in RULES if not isinstance(r, LOSES_THE_SCALE)], ids=repr)
def test_the_first_step_is_left_alone(rule, size):
    """No threshold of 1e-10 before anything is known (AdaGC's first steps have the constant 1)."""
    norms = size * (1 + np.arange(4.0)[None]) / 10
    limits, _ = rule.limits(norms[0], rule.init(norms[0]), Context())
    assert (limits >= norms * (0.99 if isinstance(rule, thresholds.Percentile) else 1)).all()


@pytest.mark.parametrize(
    "rule", [rule for rule in DEFAULTS if not isinstance(rule, (thresholds.Ema, thresholds.Growth))], ids=repr
)
def test_a_first_step_near_zero_does_not_stay(rule):
    """Ema and Growth begin with the first norm, and say so: their limits grow from there."""
    norms = np.ones((600, 1)) * 0.5
    norms[0] = 1e-10
    assert run_numpy(rule, norms)[-1] > 0.005


@pytest.mark.parametrize("rule", DEFAULTS, ids=repr)
def test_a_later_step_near_zero_does_not_stay(rule):
    norms = np.ones((900, 1)) * 0.5
    norms[300] = 1e-10
    assert run_numpy(rule, norms)[-1] > 0.4


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_the_order_of_blocks_does_not_matter(rule):
    norms = spiky_norms(150, 5)
    order = np.random.default_rng(1).permutation(5)
    np.testing.assert_allclose(run_numpy(rule, norms[:, order]), run_numpy(rule, norms)[:, order], rtol=1e-13)


@pytest.mark.parametrize("rule", PER_BLOCK, ids=repr)
def test_blocks_know_nothing_of_each_other(rule):
    norms = spiky_norms(150, 3)
    alone = np.concatenate([run_numpy(rule, norms[:, [i]]) for i in range(3)], axis=1)
    np.testing.assert_allclose(alone, run_numpy(rule, norms), rtol=1e-13)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_step_without_gradients_teaches_nothing(rule):
    norms = spiky_norms(200)
    state = run(rule, norms)[1]
    limits, after = rule.limits(np.zeros(3), state, Context(200))
    assert not np.isnan(limits).any()
    run_count = {"count"} if isinstance(rule, (thresholds.EmaRatio, thresholds.SecondMoment)) else set()
    assert states_equal(
        {k: v for k, v in after.items() if k not in run_count}, {k: state[k] for k in state if k not in run_count}
    )


@pytest.mark.parametrize(
    "rule", [r for r in PER_BLOCK if not isinstance(r, thresholds.SecondMoment) and not moves(r)], ids=repr
)
def test_a_block_lives_in_the_steps_where_it_has_a_gradient(rule):
    """Between them the others go on; a quantile that counted the zeros would fall to 0, and freeze the block."""
    full = spiky_norms(150, 2, zeros=0)
    gaps = np.zeros((450, 2))
    gaps[:, 0] = np.abs(np.random.default_rng(2).standard_normal(450)) + 0.1
    gaps[::3, 1] = full[:, 1]
    np.testing.assert_array_equal(run_numpy(rule, gaps)[::3, 1], run_numpy(rule, full)[:, 1])


@pytest.mark.parametrize("size", [1.0, 0.1, 0.7, 1e-30, 1e30])
@pytest.mark.parametrize("rule", [r for r in DEFAULTS if not isinstance(r, (thresholds.EmaRatio, LOSES_THE_SCALE))], ids=repr)
def test_equal_norms_are_not_clipped(rule, size):
    """No spread at all: rounding must not make a spike of a norm that is the mean."""
    norms = np.full((400, 2), size)
    norms[300] *= 1 + 1e-9
    limits = run_numpy(rule, norms)
    if isinstance(rule, thresholds.Outlier):
        assert (limits >= norms).all()  # dropped or not: there is no "nearly"
    assert (limits >= norms * (0.99 if isinstance(rule, thresholds.Percentile) else 1 - 1e-8)).all()


@pytest.mark.parametrize("rule", [thresholds.ZScore(), thresholds.Outlier()], ids=repr)
def test_a_spike_among_equal_norms_is_one(rule):
    norms = np.full((400, 1), 0.1)
    norms[300] = 1.0
    limits = run_numpy(rule, norms)
    assert limits[300] < 0.101
    assert (limits[301:] >= 0.1).all()


@settings(max_examples=30)
@given(
    st.integers(-100, 100),
    st.sampled_from([r for r in PER_BLOCK if not isinstance(r, (thresholds.Percentile, LOSES_THE_SCALE)) and r != RULES[1]]),
)
def test_the_unit_does_not_matter(exponent, rule):
    """Norms of 1e-30 or 1e30 are clipped as norms of 1 are, bit for bit."""
    norms, scale = spiky_norms(120, 2), 2.0**exponent
    np.testing.assert_array_equal(run_numpy(rule, norms * scale), run_numpy(rule, norms) * scale)


@pytest.mark.parametrize("exponent", [-30, 30])
def test_the_unit_does_not_matter_to_a_percentile(exponent):
    norms = spiky_norms(300, 1)
    found = run_numpy(thresholds.Percentile(50), norms * 10.0**exponent)
    np.testing.assert_allclose(found, run_numpy(thresholds.Percentile(50), norms) * 10.0**exponent, rtol=0.021)


@pytest.mark.parametrize("size", [1e-30, 1e30, 1e300])
def test_adagc_at_the_ends_of_the_range(size):
    norms = spiky_norms(300, 2, zeros=0) * size
    limits = run_numpy(thresholds.EmaRatio(warmup=20), norms)
    assert np.isfinite(limits).all()
    assert (limits > 0).all()
    whole = np.linalg.norm(norms[:20] / size, axis=1) * size
    np.testing.assert_allclose(np.linalg.norm(np.minimum(norms, limits)[:20], axis=1), np.minimum(1, whole))


def test_a_percentile_does_not_limit_what_it_cannot_count():
    norms = np.array([[1e300], [1e300], [1e-300], [1e-300], [1e-300]])
    limits = run_numpy(thresholds.Percentile(50), norms)
    assert limits[1] == np.inf
    assert limits[-1] >= 1e-300


def test_zclip_takes_a_lasting_rise_for_a_spike():
    """A property of the published rule, which its page states: the spread closes on the clipped norms."""
    norms = np.concatenate([1 + 0.1 * np.random.default_rng(0).standard_normal(200), np.full(2000, 3.0)])[:, None]
    limits = run_numpy(thresholds.ZScore(), norms)
    assert limits[-1] < 1.2
    for rule in (thresholds.Quantile(0.9, 100), thresholds.Outlier(), thresholds.Ema(), thresholds.Typical()):
        assert run_numpy(rule, norms)[-1] > 2.9


def test_a_run_of_spikes_raises_a_median_only_by_its_factor():
    """In half a window; fed with raw norms it would be at 4000 by then."""
    norms = np.concatenate([np.ones(100), np.full(80, 1000.0)])[:, None]
    assert 4 < run_numpy(thresholds.Typical(), norms)[-1] <= 16


def test_least_is_the_smaller_and_each_keeps_its_own_history():
    first, second = thresholds.ZScore(), thresholds.Quantile(0.5, 20)
    norms = spiky_norms(200, 1)
    both = run_numpy(thresholds.Minimum(first, second), norms)
    np.testing.assert_array_equal(both, np.minimum(run_numpy(first, norms), run_numpy(second, norms)))
    assert thresholds.Minimum(thresholds.Trust(), second).needs_lr
    assert not thresholds.Minimum(thresholds.Growth(), second).needs_weights
    assert not thresholds.Minimum(thresholds.Trust(), thresholds.Trust()).stateful
