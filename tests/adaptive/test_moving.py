"""Numbers that move with the step: from a given step on, compiled or not, and AGGC's published schedules made of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import gradclip
from gradclip import thresholds
from gradclip.thresholds import Context
from tests import reference
from tests.adaptive.support import run, spiky_norms

SHAPES = [
    gradclip.Linear(10, 2, 4), gradclip.Linear(1, 3, 8, after=5), gradclip.Linear(2, 2, 1, 100),
    gradclip.Cosine(10, 2, 4), gradclip.Cosine(1, 3, 8, after=5),
]  # fmt: skip
STEPS = (0, 1, 4, 5, 6, 9, 13, 14, 99, 100, 101, 10**9)


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_it_is_the_formula(shape):
    """Still until ``after``, then on its way for so many steps, then still; a Python number."""
    for step in STEPS:
        found, _ = shape.limits(None, {}, Context(step))
        assert type(found) is float
        assert found == pytest.approx(reference.at_step(shape, step), rel=1e-15)
    assert shape.limits(None, {}, Context(shape.after))[0] == shape.start
    assert shape.limits(None, {}, Context(shape.after + shape.steps))[0] == pytest.approx(shape.end)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_under_jit_the_step_may_be_traced(shape, dtype):
    norms = jnp.ones(3, dtype)
    compiled = jax.jit(lambda step: shape.limits(norms, {}, Context(step))[0])
    for step in STEPS:
        found = compiled(step)
        assert (found.dtype, found.shape) == (dtype, ())
        assert float(found) == pytest.approx(reference.at_step(shape, step), rel=1e-6 if dtype == jnp.float32 else 0.02)
    assert compiled._cache_size() == 1


@pytest.mark.parametrize(
    "rescale", [gradclip.Band(gradclip.Linear(0.9, 0.1, 6, after=2)), gradclip.Band(gradclip.Cosine(0.2, 1, 6), 3.0)], ids=repr
)
def test_a_band_moves_under_jit_too(rescale):
    norms, limits = np.array([0.0, 0.05, 0.4, 1.0, 3.0]), 1.5
    compiled = jax.jit(lambda n, step: rescale.factors(n, jnp.asarray(limits), step))
    for step in range(10):
        fixed = gradclip.Band(reference.at_step(rescale.low, step), rescale.max_gain)
        want = fixed.factors(norms, limits)
        np.testing.assert_allclose(rescale.factors(norms, limits, step), want, rtol=1e-14)
        np.testing.assert_allclose(compiled(jnp.asarray(norms), step), want, rtol=1e-6)


def test_a_numpy_step_is_a_step():
    norms = torch.ones(2)
    assert gradclip.Linear(1, 2, 10).limits(norms, {}, Context(np.int64(5)))[0] == 1.5
    assert gradclip.Cosine(1, 2, 10).limits(norms, {}, Context(np.int32(5)))[0] == 1.5


@pytest.mark.parametrize(
    "spelling",
    [
        "aggc:linear(1.5,1.1,1000),patterns=*", "aggc:linear(1.5,1.1,1000,400),cosine(0.5,0.9,10),patterns=*",
        "aggc:linear(0.6,0.7,300,400),0.0,0.95,patterns=q.*|*,min_gain=0.9", "aggc:1.5,max_gain=1.1",
        "global_norm:cosine(10.0,1.0,100,50)",
    ],
)  # fmt: skip
def test_spelling_comes_back(spelling):
    clipping = gradclip.parse(spelling)
    assert gradclip.parse(str(clipping)) == clipping
    assert gradclip.parse(repr(clipping)) == clipping


def test_what_it_spells():
    moving = gradclip.parse("aggc:linear(1.5,1.1,1000),linear(0.5,0.9,10,5)")
    assert moving == gradclip.aggc(gradclip.Linear(1.5, 1.1, 1000), gradclip.Linear(0.5, 0.9, 10, after=5))
    assert str(moving) == "aggc:linear(1.5,1.1,1000),linear(0.5,0.9,10,5)"
    assert (
        str(gradclip.global_norm(gradclip.Linear(10, 1, 100))) == "global_norm:linear(10.0,1.0,100)"
    )  # without a start, as before


def test_patterns_and_keywords_are_named_even_where_all_else_is_given():
    for clipping in (
        gradclip.agc(0.02, 0.01, 1, exclude="head.*"),
        gradclip.zclip(2, 0.9, 9, 3, nonfinite="zero"),
        gradclip.aggc(2, 0.4, 0.9, "7"),
    ):
        assert gradclip.parse(str(clipping)) == clipping
    assert str(gradclip.zclip(2, 0.9, 9, 3, exclude="a")) == "zclip:2.0,0.9,9,3.0,exclude=a"


def test_attached_the_band_moves_with_the_run():
    """The upper edge falls from 3 to 1.2 of the average over steps 10 to 20, the lower rises from 0.1 to 0.9 of it."""
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    factors = []
    with gradclip.attach(optimizer, "aggc:linear(3,1.2,10,10),linear(0.1,0.9,10,10),0.999"):
        for step in range(40):
            norm = {5: 2.5, 6: 0.4, 25: 2.5, 26: 0.4}.get(step, 1.0)
            weight.grad = torch.tensor([norm], dtype=torch.float64)
            optimizer.step()
            factors.append(float(weight.grad) / norm)
    assert (factors[5], factors[6]) == (1.0, 1.0)
    assert factors[25] * 2.5 == pytest.approx(1.2, rel=0.01)
    assert factors[26] * 0.4 == pytest.approx(0.9 * 1.2, rel=0.01)


class Published:
    """AGGC's published clipper for one module: the edges are those of the average before, which takes in what it scaled."""

    def __init__(self, low, high, beta, switch, width, raises, scales=(0.9, 1.1)) -> None:
        self.low, self.high, self.beta, self.raises, self.scales = low, high, beta, raises, scales
        self.switch, self.width, self.average = switch, width, 0.0

    def edges(self, progress: float) -> tuple[float, float]:
        share = min(1.0, max(0.0, (progress - self.switch) / self.width))
        low, high = (a * (1 - share) + b * share for a, b in (self.low, self.high))
        return low * self.average, high * self.average

    def scale(self, norm: float, progress: float) -> float:
        lower, upper = self.edges(progress)
        found = 1.0
        if upper > 0 and norm > upper:
            found = max(upper / norm, self.scales[0])
        elif self.raises and norm < lower:
            found = min(lower / norm, self.scales[1])
        self.average = self.beta * self.average + (1 - self.beta) * norm * found
        return found


class TestAggcAsPublished:
    STEPS = 1000
    LORA = gradclip.aggc(gradclip.Linear(0.6, 0.7, 300, after=400), 0, 0.95, "*", min_gain=0.9)
    LORA_SCRIPT = ((0.95, 0.98), (0.6, 0.7), 0.95, 0.4, 0.3, False)
    GRPO = gradclip.aggc(gradclip.Linear(0.7, 0.999, 200, after=600), 1.0, 0.99, "*", max_gain=1.1, min_gain=0.9)
    GRPO_SCRIPT = ((0.98, 0.98), (0.7, 0.999), 0.99, 0.6, 0.2, True)

    def both(self, clipping, script, norms):
        """The factors of the recipe and of the published clipper."""
        limits, _ = run(clipping.threshold, norms)
        ours = [clipping.rescale.factors(n, limit, step) for step, (n, limit) in enumerate(zip(norms, limits, strict=True))]
        published = Published(*script)
        theirs = [published.scale(float(n[0]), step / self.STEPS) for step, n in enumerate(norms)]
        return np.array(ours)[:, 0], np.array(theirs)

    def test_lora_the_edges_are_those_of_the_script(self):
        published = Published(*self.LORA_SCRIPT)
        published.average = 1.0
        for step in range(self.STEPS):
            high = self.LORA.threshold.high.at(step, None)
            assert high == pytest.approx(published.edges(step / self.STEPS)[1], rel=1e-12)

    def test_lora_it_scales_as_the_script_does_once_its_average_is_there(self):
        """Theirs begins at 0, ours at the first norm; and ours takes this norm in before it makes the edge."""
        norms = spiky_norms(self.STEPS, 1, zeros=0)
        ours, theirs = self.both(self.LORA, self.LORA_SCRIPT, norms)
        assert (np.abs(ours - theirs)[100:] < 0.02).mean() > 0.97
        assert ours.min() == pytest.approx(0.9)

    def test_lora_what_lies_near_its_average_comes_out_at_nine_tenths(self):
        """With an edge at 0.6 of the average, its numbers multiply nearly every norm by the least factor: theirs and ours."""
        norms = np.exp(0.1 * np.random.default_rng(0).standard_normal((self.STEPS, 1)))
        for factors in self.both(self.LORA, self.LORA_SCRIPT, norms):
            assert factors[0] == 1
            np.testing.assert_allclose(factors[1:], 0.9, rtol=1e-12)

    def test_grpo_before_and_after_the_switch(self):
        """Until the switch the script's lower edge lies above its upper one; the recipe's nearest is where they meet."""
        norms = np.exp(0.25 * np.random.default_rng(0).standard_normal((self.STEPS, 1)))
        ours, theirs = self.both(self.GRPO, self.GRPO_SCRIPT, norms)
        lower, upper = Published(*self.GRPO_SCRIPT).low[0], Published(*self.GRPO_SCRIPT).high[0]
        assert lower > upper
        assert (ours >= 0.9 - 1e-12).all()
        assert (ours <= 1.1 + 1e-12).all()
        apart = np.abs(ours - theirs)
        assert (apart[850:] < 0.04).all()  # ours takes this norm in before it makes the edges
        assert np.median(apart[100:550]) < 1e-9  # 0.9 or 1.1, mostly

    def test_a_first_norm_is_left_alone_below_one_too(self):
        limits, state = self.LORA.threshold.limits(np.array([3.0]), {"ema": np.zeros(1)}, Context())
        assert (float(limits[0]), float(state["ema"][0])) == (3.0, 3.0)

    def test_without_a_least_factor_the_average_would_vanish(self):
        with pytest.raises(ValueError, match="set min_gain"):
            gradclip.aggc(0.6)
        state = run(self.LORA.threshold, np.ones((1000, 1)))[1]
        assert float(state["ema"][0]) == pytest.approx(0.9)
        assert thresholds.Ema(0.6, min_gain=0.5).high == 0.6
