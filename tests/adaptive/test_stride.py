"""The stride rule: its formula over a run, the same in every library, and what it is for."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import gradclip
from gradclip.thresholds import Context, Stride
from tests import reference
from tests.adaptive.support import spiky_norms

RULES = [Stride(), Stride(0.04, 3.0, 0.2, 20, 3), Stride(0.02, 1.0, 1.0, 5, 5)]
NORMS = spiky_norms(600, 3)
WEIGHTS = 1 + np.abs(np.sin(np.arange(600)))[:, None] * np.array([0.0, 1.0, 4.0])
LRS = np.array([0.3, 0.0, 0.4])


def run(rule, library):
    state = rule.init(library(NORMS[0]))
    found = []
    for step, (n, w) in enumerate(zip(NORMS, WEIGHTS, strict=True)):
        limits, state = rule.limits(library(n), state, Context(step, library(w), library(LRS)))
        found.append(np.asarray(limits))
    return np.stack(found), state


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_limits_are_the_formula_in_every_library(rule):
    want = np.stack([reference.stride(rule, NORMS[:, b], WEIGHTS[:, b], LRS[b]) for b in range(3)], axis=1)
    assert np.isinf(want[:, 1]).all()  # an optimizer that divides by the gradient's size
    for library in (np.asarray, torch.as_tensor):
        np.testing.assert_allclose(run(rule, library)[0], want, rtol=1e-12)
    with jax.enable_x64(True):

        @jax.jit
        def scan(norms, weights):
            def step(state, now):
                limits, after = rule.limits(now[0], state, Context(0, now[1], jnp.asarray(LRS)))
                return after, limits

            return jax.lax.scan(step, rule.init(norms[0]), (norms, weights))[1]

        np.testing.assert_allclose(scan(jnp.asarray(NORMS), jnp.asarray(WEIGHTS)), want, rtol=1e-12)


def test_the_recording_shortens_a_stride_and_follows_the_median():
    strides = [run(rule, np.asarray)[1]["strides"] for rule in RULES]
    assert all(counted.max() > 20 for counted in strides), strides
    assert all(counted[1] == 0 for counted in strides)
    limits, _ = run(RULES[1], np.asarray)
    shares = limits[:, 2] * LRS[2] / WEIGHTS[:, 2]
    assert len(np.unique(np.round(shares, 12))) > 100


@pytest.mark.parametrize("steady", [0.1, 1.2, 50.0])
def test_a_steady_norm_sets_the_length_between_the_two_ends(steady):
    rule, one = Stride(window=1000), np.ones(1)
    state = rule.init(one)
    for step in range(12):
        limit, state = rule.limits(steady * one, state, Context(step, 33 * one, one))
    assert limit[0] == pytest.approx(min(max(steady, 0.99), 1.485))


def test_strides_shorten_to_the_least_share_and_no_further():
    rule, one = Stride(eta=0.1, reach=1.0, least=0.25, window=10, after=1), np.ones(1)
    state = rule.init(one)
    limits = []
    for step in range(200):
        limit, state = rule.limits(100 * one, state, Context(step, one, one))
        limits.append(float(limit[0]))
    assert limits[:11] == pytest.approx([0.1] * 11)  # until its window has been full for a step
    assert limits[12] == pytest.approx(0.1 / (1 + 0.4 * 2) ** 0.5)
    assert limits[-1] == pytest.approx(0.025)
    assert all(a >= b for a, b in pairwise(limits))


def test_auto_resumes_bit_for_bit():
    def built():
        torch.manual_seed(0)
        net = nn.Linear(6, 4)
        optimizer = torch.optim.SGD(net.parameters(), lr=5.0)
        return net, optimizer, gradclip.attach(optimizer, gradclip.auto(window=10))

    def go(net, optimizer, steps):
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            x = torch.randn(8, 6, generator=generator)
            optimizer.zero_grad()
            (net(x).square().mean() * (1000 if step % 7 == 0 else 10)).backward()
            optimizer.step()

    net, optimizer, handle = built()
    go(net, optimizer, range(20))
    weights, saved = {k: v.clone() for k, v in net.state_dict().items()}, handle.state_dict()
    assert float(saved["threshold.0.strides"]) > 0
    go(net, optimizer, range(20, 40))
    again, optimizer, handle = built()
    again.load_state_dict(weights)
    handle.load_state_dict(saved)
    go(again, optimizer, range(20, 40))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"eta": 0}, "the share eta must be > 0"),
        ({"reach": 0.5}, "reach >= 1, not 0.5"),
        ({"reach": float("nan")}, "NaN|nan"),
        ({"least": 0}, r"\(0, 1\], not 0"),
        ({"least": 1.5}, r"\(0, 1\], not 1.5"),
        ({"window": 0}, "window"),
        ({"after": 200}, "window holds 100"),
    ],
)
def test_what_cannot_be_is_refused_when_built(arguments, said):
    with pytest.raises(ValueError, match=said):
        Stride(**arguments)
