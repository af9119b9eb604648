"""One line of a rule runs on NumPy, PyTorch and JAX, plain and compiled, and says the same."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from gradclip import thresholds
from gradclip.thresholds import Context, Relative
from tests.adaptive.support import DEFAULTS, RULES, run, run_numpy, spiky_norms

STEPS = 200
NORMS = spiky_norms(STEPS)


@pytest.fixture(autouse=True)
def _double():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)  # other tests of the same process have set it for themselves


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_torch_says_the_same(rule):
    limits, state = run(rule, torch.from_numpy(NORMS))
    assert all(isinstance(value, torch.Tensor) and value.dtype == torch.float64 for value in [*limits, *state.values()])
    np.testing.assert_allclose(torch.stack(limits).numpy(), run_numpy(rule, NORMS), rtol=1e-12)


def scanned(rule, norms):
    """A run as one compiled loop: nothing in a rule asks the host or branches on a value."""

    def step(state, row):
        limits, state = rule.limits(row[0], state, Context(row[1]))
        return state, limits

    return jax.jit(lambda n: jax.lax.scan(step, rule.init(n[0]), (n, jnp.arange(len(n)))))(norms)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_scan_in_jax_says_the_same(rule):
    _, limits = scanned(rule, jnp.asarray(NORMS))
    np.testing.assert_allclose(limits, run_numpy(rule, NORMS), rtol=1e-12)


@pytest.mark.parametrize("rule", DEFAULTS, ids=repr)
def test_a_step_in_jax_says_the_same_plain_and_compiled(rule):
    _, state = run(rule, NORMS[:150])
    want, _ = rule.limits(NORMS[150], state, Context(150))
    moved = {key: jnp.asarray(value) for key, value in state.items()}

    def plain(norms, state, number):
        return rule.limits(norms, state, Context(number))

    for step in (plain, jax.jit(plain)):
        limits, after = step(jnp.asarray(NORMS[150]), moved, 150)
        np.testing.assert_allclose(limits, want, rtol=1e-12)
        assert all(isinstance(value, jax.Array) for value in after.values())


@pytest.mark.parametrize("rule", DEFAULTS, ids=repr)
def test_single_precision_stays_single(rule):
    """Where float64 does not exist (some accelerators), a rule works in what it is given."""
    single = NORMS.astype(np.float32)
    want = run_numpy(rule, NORMS)
    state, limits = scanned(rule, jnp.asarray(single))
    for library, (found, kept) in {
        "numpy": run(rule, single),
        "torch": run(rule, torch.from_numpy(single)),
        "jax": (limits, state),
    }.items():
        assert {str(value.dtype).removeprefix("torch.") for value in [*found, *kept.values()]} == {"float32"}, library
        close = np.isclose(np.stack(found), want, rtol=0.021)  # a bin may differ, and so may what lies on its edge
        assert close.mean() > 0.99, library


@pytest.mark.parametrize(
    "rule", [thresholds.Trust(0.3), Relative(0.3), thresholds.Minimum(thresholds.Trust(), thresholds.ZScore())], ids=repr
)
def test_rules_that_read_the_weights_say_the_same(rule):
    weights, lr = np.array([0.0, 1e-4, 5.0]), np.array([0.1, 0.0, 3.0])
    context = Context(0, weights, lr)
    want, _ = rule.limits(NORMS[0], rule.init(NORMS[0]), context)
    for library in (torch.as_tensor, jnp.asarray):
        norms, moved = library(NORMS[0]), Context(0, library(weights), library(lr))
        found, _ = rule.limits(norms, rule.init(norms), moved)
        np.testing.assert_allclose(np.asarray(found), want, rtol=1e-12)
    traced = jax.jit(lambda n, w, r: rule.limits(n, rule.init(n), Context(0, w, r))[0])
    np.testing.assert_allclose(traced(*map(jnp.asarray, (NORMS[0], weights, lr))), want, rtol=1e-12)


@pytest.mark.parametrize("rule", DEFAULTS, ids=repr)
def test_ten_thousand_steps_in_the_memory_of_the_first(rule):
    norms = spiky_norms(10_000, 1)
    first = rule.init(norms[0])
    state, limits = scanned(rule, jnp.asarray(norms))
    assert {key: value.nbytes for key, value in state.items()} == {key: value.nbytes for key, value in first.items()}
    assert all(isinstance(key, str) for key in state)
    last = np.asarray(limits)[-1000:]
    assert not np.isnan(last).any()
    assert (last > 1e-6).all()
