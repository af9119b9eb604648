"""The executable specification is held by something independent of it: numbers by hand, torch, and the papers' formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import gradclip
from gradclip.recipes import fixed
from gradclip.scopes import Entry
from gradclip.torch.targets import resolve
from tests import reference
from tests.oracles.support import assert_result, parameters_of, plain, sample

TWO = [[3.0, 4.0], [12.0]]
"""Two tensors of norms 5 and 12; together 13."""
BY_HAND = {
    "global_norm:6.5": [[1.5, 2.0], [6.0]],
    "global_norm:13": TWO,
    "global_norm:20": TWO,
    "global_norm:inf": TWO,
    "global_norm:9.5,norm=1": [[1.5, 2.0], [6.0]],
    "global_norm:3,norm=inf": [[0.75, 1.0], [3.0]],
    "global_norm:1,norm=rms": [[3 * 3**0.5 / 13, 4 * 3**0.5 / 13], [12 * 3**0.5 / 13]],
    "global_norm:1,norm=0.5": [[x / (3**0.5 + 2 + 12**0.5) ** 2 for x in row] for row in TWO],
    "global_norm:1,norm=3": [[x / (27 + 64 + 1728) ** (1 / 3) for x in row] for row in TWO],
    "global_norm:1,exclude=bias": [[0.6, 0.8], [12.0]],
    "global_norm:linear(13,6.5,10)": TWO,
    "value:3.5": [[3.0, 3.5], [3.5]],
    "value:-9,3.5": [[3.0, 3.5], [3.5]],
    "value:-9,0": [[0.0, 0.0], [0.0]],
    "tensor_norm:1": [[0.6, 0.8], [1.0]],
    "tensor_norm:6": [[3.0, 4.0], [6.0]],
    "tensor_norm:3.5,norm=1": [[1.5, 2.0], [3.5]],
    "group_norm:1|6,patterns=weight|*": [[0.6, 0.8], [6.0]],
    "group_norm:6.5,patterns=*": [[1.5, 2.0], [6.0]],
    "block_rms:1": [[3 / 12.5**0.5, 4 / 12.5**0.5], [1.0]],
    "block_rms:5": [[3.0, 4.0], [5.0]],
    "normalize:1": [[3 / 13, 4 / 13], [12 / 13]],
    "normalize:26": [[6.0, 8.0], [24.0]],
    "normalize:13,soft=true": [[1.5, 2.0], [6.0]],
    "normalize:inf,soft=true": TWO,
    "agc:0.5": [[0.6, 0.8], [0.0005]],  # weights of norms 2 and 0: limits 1 and 0.5 * 0.001
    "agc:2,floor=10": [[3.0, 4.0], [12.0]],
    "trust:0.65": [[0.6, 0.8], [2.4]],  # 0.65 of a norm of 2, at the larger learning rate
    "trust:0.5,per_tensor=true": [[1.2, 1.6], [0.002]],
}
LRS = [0.5, 0.25]
WEIGHTS = [[0.0, 2.0], [0.0]]
NAMED = [Entry("weight", (2,)), Entry("bias", (1,))]


@pytest.mark.parametrize("spelling", BY_HAND)
def test_by_hand(spelling):
    result = reference.clip(gradclip.parse(spelling), TWO, WEIGHTS, entries=NAMED, lrs=LRS)
    assert_result(plain(result.grads), BY_HAND[spelling], 1e-15)


def test_every_recipe_without_a_history_is_worked_out_by_hand():
    assert {spelling.partition(":")[0] for spelling in BY_HAND} == set(fixed.__all__)


def test_negative_and_complex_elements():
    assert_result(plain(reference.clip(gradclip.value(-0.5, 2.0), [[-3.0, 3.0, -0.1, 0.0]]).grads), [[-0.5, 2.0, -0.1, 0.0]])
    assert_result(plain(reference.clip(gradclip.value(1.0), [[3 + 4j, 0.1j]]).grads), [[0.6 + 0.8j, 0.1j]])
    assert_result(plain(reference.clip(gradclip.global_norm(1.0), [[3j], [-4.0]]).grads), [[0.6j], [-0.8]])


def test_what_it_reports():
    result = reference.clip(gradclip.tensor_norm(6.0), TWO)
    assert (result.norm, result.block_norms, result.factors) == (13.0, [5.0, 12.0], [1.0, 0.5])
    assert result.clipped_norm == pytest.approx(61**0.5, rel=1e-15)
    left_out = reference.clip(gradclip.tensor_norm(1.0, exclude="1"), TWO)
    assert (left_out.norm, left_out.block_norms) == (5.0, [5.0])
    assert left_out.clipped_norm == pytest.approx(1.0, rel=1e-15)


@pytest.mark.parametrize("spelling", BY_HAND)
def test_the_inputs_stay(spelling):
    given = [np.array(g) for g in TWO]
    reference.clip(gradclip.parse(spelling), given, WEIGHTS, entries=NAMED, lrs=LRS)
    assert plain(given) == TWO


RESCALES = {
    gradclip.Band(0.5, max_gain=10.0): [(10.0, 2.0), (2.0, 2.0), (1.5, 1.5), (1.0, 1.0), (0.25, 1.0), (0.01, 0.1), (0.0, 0.0)],
    gradclip.Drop(): [(10.0, 0.0), (2.0, 2.0), (1.0, 1.0), (0.0, 0.0)],
    gradclip.Hard(): [(10.0, 2.0), (2.0, 2.0), (1.0, 1.0), (0.0, 0.0)],
    gradclip.Normalize(): [(10.0, 2.0), (2.0, 2.0), (1e-9, 2.0), (0.0, 0.0)],
    gradclip.Soft(): [(10.0, 10 / 6), (2.0, 1.0), (0.0, 0.0)],
    gradclip.Soft(2): [(1.5, 1.2), (2.0, 2**0.5), (0.0, 0.0)],
    gradclip.Soft(0.5): [(8.0, 8 / 9), (2.0, 0.5), (0.0, 0.0)],
}


@pytest.mark.parametrize("rescale", RESCALES, ids=str)
def test_rescales_by_hand(rescale):
    """(norm before, norm after) at the limit 2."""
    for before, after in RESCALES[rescale]:
        got = reference.clip(
            gradclip.Clipping(threshold=gradclip.Constant(2.0), rescale=rescale), [[0.6 * before, -0.8 * before]]
        )
        assert_result(plain(got.grads), [[0.6 * after, -0.8 * after]], 1e-15)


SCHEDULES = {
    gradclip.Linear(10.0, 2.0, 4): {0: 10.0, 1: 8.0, 2: 6.0, 4: 2.0, 9: 2.0},
    gradclip.Cosine(10.0, 2.0, 4): {0: 10.0, 1: 6 + 4 * 0.5**0.5, 2: 6.0, 4: 2.0, 9: 2.0},
    gradclip.Schedule(lambda step: 2.0**-step): {0: 1.0, 1: 0.5, 10: 2.0**-10},
}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_schedules_by_hand(schedule):
    for step, limit in SCHEDULES[schedule].items():
        got = reference.clip(gradclip.Clipping(threshold=schedule), [[60.0, 80.0]], step=step)
        assert got.clipped_norm == pytest.approx(limit, rel=1e-15)


def test_optimizer_groups():
    entries = [Entry("a", (2,), group=1), Entry("b", (1,), group=0), Entry("c", (1,), group=1)]
    got = reference.clip(gradclip.group_norm([1.0, 6.5]), [*TWO[:1], [9.0], [12.0]], entries=entries)
    assert_result(plain(got.grads), [[1.5, 2.0], [1.0], [6.0]], 1e-15)


@pytest.mark.parametrize("p", [0.5, 1, 1.5, 2, 3, 7, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 3.0, 1e6])
def test_torch_in_float64(p, max_norm):
    """torch scales by c / (n + 1e-6): what it clips, times (n + 1e-6) / n, is what the formula without eps says."""
    grads = sample()
    parameters = parameters_of(grads)
    norm = float(nn.utils.clip_grad_norm_(parameters, max_norm, p))
    eps = (norm + 1e-6) / norm if max_norm < norm + 1e-6 else 1.0
    got = reference.clip(gradclip.global_norm(max_norm, norm=p), grads)
    assert got.norm == pytest.approx(norm, rel=1e-13)
    assert_result(plain(got.grads), plain([q.grad * eps for q in parameters]), 1e-13)


def test_torch_value_and_one_call_a_parameter():
    grads = sample()
    by_value, by_tensor = parameters_of(grads), parameters_of(grads)
    nn.utils.clip_grad_value_(by_value, 0.3)
    assert_result(plain(reference.clip(gradclip.value(0.3), grads).grads), plain([q.grad for q in by_value]), 1e-15)
    for parameter in by_tensor:
        nn.utils.clip_grad_norm_(parameter, 0.7)
    assert_result(plain(reference.clip(gradclip.tensor_norm(0.7), grads).grads), plain([q.grad for q in by_tensor]), 2e-6)


OPTAX = {
    "clip_by_global_norm": gradclip.global_norm,
    "clip": gradclip.value,
    "clip_by_block_rms": gradclip.block_rms,
    "adaptive_grad_clip": lambda ratio: gradclip.agc(ratio, axis=-1),
}


@pytest.mark.parametrize("threshold", [0.01, 0.5, 3.0, 100.0])
@pytest.mark.parametrize("name", OPTAX)
def test_optax_in_float64(name, threshold):
    optax, jax = pytest.importorskip("optax"), pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    grads, weights = (sample(seed, shapes=((5, 6), (6,), (3, 3, 2, 4), ())) for seed in (0, 1))
    method = getattr(optax, name)(threshold)
    theirs, _ = method.update([jax.numpy.asarray(g) for g in grads], method.init(weights), weights)
    assert all(array.dtype == "float64" for array in theirs)
    assert_result(plain(reference.clip(OPTAX[name](threshold), grads, weights).grads), plain(theirs), 1e-14)


@pytest.mark.parametrize(("norm", "formula"), [
    (gradclip.L1, lambda x: math.fsum(map(abs, x))),
    (gradclip.L2, lambda x: math.hypot(*x)),
    (gradclip.LINF, lambda x: max(map(abs, x))),
    (gradclip.RMS, lambda x: math.sqrt(math.fsum(v * v for v in x) / len(x))),
    (gradclip.Norm(3), lambda x: math.fsum(abs(v) ** 3 for v in x) ** (1 / 3)),
    (gradclip.Norm(0.5), lambda x: math.fsum(abs(v) ** 0.5 for v in x) ** 2),
    (gradclip.Norm(1, mean=True), lambda x: math.fsum(map(abs, x)) / len(x)),
], ids=lambda given: str(given) if isinstance(given, gradclip.Norm) else "formula")  # fmt: skip
def test_norms_are_their_formulas(norm, formula):
    for array in sample(scale=3.0):
        assert reference.norm_of(array, norm) == pytest.approx(formula(array.ravel().tolist()), rel=1e-14)


def test_norms_of_extremes():
    for size in (5e-324, 1e-200, 1e200, 1.7e308):
        assert reference.norm_of(np.array([size, 0.0]), gradclip.L2) == size
        assert reference.norm_of(np.array([size]), gradclip.RMS) == size
    assert reference.norm_of(np.array([3e200, -4e200]), gradclip.L2) == pytest.approx(5e200, rel=1e-15)
    assert reference.norm_of(np.array([3e-200j, 4e-200]), gradclip.L2) == pytest.approx(5e-200, rel=1e-15)
    assert [reference.norm_of(np.zeros(n), gradclip.RMS) for n in (0, 3)] == [0.0, 0.0]


LAYERS = {
    "linear": (nn.Linear(5, 4, bias=False), (5,)),
    "conv": (nn.Conv2d(4, 6, 3, groups=2, bias=False), (4, 3, 3)),
    "transposed": (nn.ConvTranspose2d(6, 4, 2, groups=2, bias=False), (6, 2, 2)),
    "transposed 1d": (nn.ConvTranspose1d(4, 3, 2, bias=False), (4, 3)),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_unit_is_what_feeds_one_output(layer):
    """AGC's units found by differentiation: the weights on which one output channel depends."""
    module, shape = LAYERS[layer]
    module = module.double()
    grad, weight = sample(4, shapes=(tuple(module.weight.shape),) * 2)
    want = grad.copy()
    for channel in module(torch.ones(1, *shape, dtype=torch.float64))[0]:
        (reached,) = torch.autograd.grad(channel.sum(), module.weight, retain_graph=True)
        unit = reached.numpy() != 0
        norm, largest = np.linalg.norm(grad[unit]), 0.3 * np.linalg.norm(weight[unit])
        want[unit] *= min(1.0, largest / norm)
    assert not (want == grad).all()
    got = reference.clip(gradclip.agc(0.3), [grad], [weight], entries=resolve(module).entries)
    assert_result(plain(got.grads), plain([want]), 1e-14)
