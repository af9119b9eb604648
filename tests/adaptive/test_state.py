"""What a rule remembers: never a NaN, bounded, and taken up again bit for bit."""

from __future__ import annotations

import copy
import io
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradclip
from gradclip import thresholds

SPELLINGS = [
    "zclip:1.5,0.9,5", "adagc:1.1,0.9,5,3", "aggc:1.2,0.5,0.9,patterns=*", "spam:2,0.9,3", "norm_growth:1.05",
    "autoclip:50", "quantile:0.5,10", "quantile:0.5,10,per_tensor=true", "skip_step:1.5,10,4",
    "stable_spam:0.9,0.5,0.8", "aggc:linear(0.6,0.7,5,9),0,0.95,patterns=*,min_gain=0.9",
    "Chain('zclip:1.5,0.9,5', 'agc:0.1')",
]  # fmt: skip
STEPS = 20


def made() -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    return {"a": nn.Parameter(torch.randn(3, 2)), "b": nn.Parameter(torch.randn(4)), "c": nn.Parameter(torch.randn(2))}


def gradients(seed: int = 0) -> list[list[torch.Tensor | None]]:
    """The gradients of a run: a spike in every seventh step, the last parameter's missing in every third."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.randn(STEPS, generator=generator).mul(0.5).exp()
    size[6::7] *= 50
    draw = [[torch.randn(p.shape, generator=generator) * s for p in made().values()] for s in size]
    return [[*grads[:2], None if step % 3 == 2 else grads[2]] for step, grads in enumerate(draw)]


def under(spelling: str, policy: str) -> str:
    """The same method with another policy for a NaN."""
    return spelling.replace("',", f",nonfinite={policy}',").replace("')", f",nonfinite={policy}')") if "Chain" in spelling \
        else f"{spelling},nonfinite={policy}"  # fmt: skip


def take(clipper: gradclip.Clipper, grads: list[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """One step; return what became of the gradients."""
    for parameter, grad in zip(clipper.parameters, grads, strict=True):
        parameter.grad = None if grad is None else grad.clone()
    clipper.clip_()
    return [p.grad for p in clipper.parameters]


def same(one: list[torch.Tensor | None], other: list[torch.Tensor | None]) -> bool:
    return all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(one, other, strict=True)
    )


def same_state(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(v, other[k]) if isinstance(v, torch.Tensor) else v == other[k] for k, v in one.items()
    )


def history(clipper: gradclip.Clipper) -> dict:
    return {key: value for key, value in clipper.state_dict().items() if isinstance(value, torch.Tensor)}


def through_a_file(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@settings(max_examples=25)
@given(st.sampled_from(SPELLINGS), st.integers(0, STEPS - 1), st.integers(0, 3))
def test_resumed_bit_for_bit_at_any_step(spelling, stop, seed):
    run = gradients(seed)
    whole, first = gradclip.Clipper(made(), spelling), gradclip.Clipper(made(), spelling)
    want = [take(whole, grads) for grads in run]
    for grads in run[:stop]:
        take(first, grads)
    second = gradclip.Clipper(made(), spelling)
    second.load_state_dict(through_a_file(first.state_dict()))
    assert all(same(take(second, grads), w) for grads, w in zip(run[stop:], want[stop:], strict=True))
    assert same_state(second.state_dict(), whole.state_dict())


@pytest.mark.filterwarnings("ignore:gradclip skipped a step")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("policy", ["skip", "propagate", "raise"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_non_finite_step_never_enters_the_history(spelling, policy, bad):
    """Neither as the first step nor later; what follows is as if it had not been."""
    run = gradients()
    poisoned = [grad if grad is None else torch.full_like(grad, bad) for grad in run[0]]
    half = [run[1][0], torch.tensor([1.0, bad, 1.0, 1.0]), None]
    clean, dirty = gradclip.Clipper(made(), under(spelling, policy)), gradclip.Clipper(made(), under(spelling, policy))
    for step, grads in enumerate(run):
        if step in (0, 1, 9):
            for wrong in (poisoned, half):
                before = history(dirty)
                if policy == "raise":
                    with pytest.raises(gradclip.NonFiniteGradientError):
                        take(dirty, wrong)
                else:
                    take(dirty, wrong)
                assert same_state(history(dirty), before)
        assert same(take(clean, grads), take(dirty, grads))
    assert same_state(history(clean), history(dirty))
    assert all(torch.isfinite(v[v < torch.inf]).all() and not v.isnan().any() for v in history(dirty).values())


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_under_zero_the_rest_of_the_step_is_remembered(spelling):
    run = gradients()
    clean, dirty = gradclip.Clipper(made(), under(spelling, "zero")), gradclip.Clipper(made(), under(spelling, "zero"))
    for step, grads in enumerate(run):
        zeroed, wrong = [copy.copy(grads) for _ in range(2)]
        if step in (0, 9):
            zeroed[1], wrong[1] = torch.tensor([1.0, 0.0, 2.0, 3.0]), torch.tensor([1.0, float("nan"), 2.0, 3.0])
        assert same(take(clean, zeroed), take(dirty, wrong))
    assert same_state(history(clean), history(dirty))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_state_does_not_grow(spelling):
    clipper = gradclip.Clipper(made(), spelling)
    sizes = []
    for grads in gradients():
        take(clipper, grads)
        sizes.append({key: value.shape for key, value in history(clipper).items()})
    assert all(size == sizes[0] for size in sizes)
    assert sizes[0]


def bigger() -> dict[str, nn.Parameter]:
    return made() | {"d": nn.Parameter(torch.ones(2))}


REFUSED = {
    "another recipe": (lambda s: s | {"recipe": "zclip:3.0"}, "belongs to zclip:3.0, not to adagc"),
    "another version": (lambda s: s | {"version": 99}, "version 99, this gradclip reads"),
    "an incomplete one": (lambda s: {k: v for k, v in s.items() if k != "step"}, "'step' missing"),
    "half a history": (lambda s: {k: v for k, v in s.items() if k != "threshold.ema"}, "was the model changed"),
    "another shape": (lambda s: s | {"threshold.ema": torch.ones(7)}, "was the model changed"),
    "no dict": (list, "a dict is needed, not list"),
    "nothing": (lambda _: None, "a dict is needed, not NoneType"),
    "a version that is no number": (lambda s: s | {"version": torch.ones(2)}, "version tensor"),
    "a recipe that is no text": (lambda s: s | {"recipe": torch.ones(2)}, "belongs to tensor"),
    "a float as a counter": (lambda s: s | {"step": 3.5}, "counters are whole numbers of at least 0, not {'step': 3.5}"),
    "NaN as a counter": (lambda s: s | {"skipped": float("nan")}, "not {'skipped': nan}"),
    "text as a counter": (lambda s: s | {"step": "3"}, "not {'step': '3'}"),
    "None as a counter": (lambda s: s | {"skipped_in_a_row": None}, "not {'skipped_in_a_row': None}"),
    "a negative counter": (lambda s: s | {"step": -1}, "not {'step': -1}"),
    "a list as an array": (lambda s: s | {"threshold.ema": [1.0, 2.0, 3.0]}, "arrays are not tensors"),
    "half precision": (lambda s: s | {"threshold.ema": s["threshold.ema"].half()}, "is torch.float16, not torch.float64"),
    "whole numbers": (lambda s: s | {"threshold.count": s["threshold.count"].long()}, "is torch.int64, not torch.float64"),
    "complex": (lambda s: s | {"threshold.ema": s["threshold.ema"].cdouble()}, "is torch.complex128, not torch.float64"),
    "without values": (lambda s: s | {"threshold.ema": s["threshold.ema"].to("meta")}, "without values"),
    "sparse": (lambda s: s | {"threshold.ema": s["threshold.ema"].to_sparse()}, "plain tensors"),
    "a NaN": (lambda s: s | {"threshold.largest": s["threshold.largest"] * float("nan")}, "'largest' holds a NaN"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_state_of_something_else_is_refused_whole(case):
    change, message = REFUSED[case]
    clipper, other = gradclip.Clipper(made(), "adagc:1.1"), gradclip.Clipper(made(), "adagc:1.1")
    for grads in gradients()[:5]:
        take(clipper, grads)
    take(other, gradients()[3])
    before = other.state_dict()
    with pytest.raises(gradclip.StateError, match=re.escape(message)) as error:
        other.load_state_dict(change(clipper.state_dict()))
    assert "\n" not in str(error.value)
    assert same_state(other.state_dict(), before)


@pytest.mark.parametrize("case", REFUSED)
def test_in_backward_refuses_the_same(case):
    change, message = REFUSED[case]
    clipper = gradclip.Clipper(made(), "adagc:1.1")
    take(clipper, gradients()[0])
    parameters = made()
    with gradclip.InBackward(parameters, "adagc:1.1") as other:
        before = other.state_dict()
        with pytest.raises(gradclip.StateError, match=re.escape(message)):
            other.load_state_dict(change(clipper.state_dict()))
        assert same_state(other.state_dict(), before)


def test_a_state_that_is_being_trained_is_taken_up_without_its_graph():
    clipper, other = gradclip.Clipper(made(), "adagc:1.1"), gradclip.Clipper(made(), "adagc:1.1")
    take(clipper, gradients()[0])
    state = clipper.state_dict()
    other.load_state_dict(state | {"threshold.ema": state["threshold.ema"].clone().requires_grad_()})
    take(other, gradients()[1])
    assert not any(value.requires_grad for value in history(other).values())


def test_a_state_of_another_model_is_refused():
    clipper, other = gradclip.Clipper(made(), "adagc"), gradclip.Clipper(bigger(), "adagc")
    take(clipper, gradients()[0])
    with pytest.raises(gradclip.StateError, match="was the model changed"):
        other.load_state_dict(clipper.state_dict())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: thresholds.Percentile(0), "between 0 and 100"),
        (lambda: thresholds.Percentile(101), "between 0 and 100"),
        (lambda: thresholds.Quantile(1.5), "between 0 and 1"),
        (lambda: thresholds.Quantile(0.5, 0), "whole number of steps >= 1"),
        (lambda: thresholds.Quantile(0.5, 2.5), "whole number of steps >= 1"),
        (lambda: thresholds.Outlier(window=1), "whole number of steps >= 2"),
        (lambda: thresholds.Outlier(window=10, after=20), "its window holds 10"),
        (lambda: thresholds.Outlier(-1.0), "must be > 0"),
        (lambda: thresholds.ZScore(alpha=1.0), "between 0 and 1"),
        (lambda: thresholds.ZScore(z=0), "must be > 0"),
        (lambda: thresholds.ZScore(warmup=1), "whole number of steps >= 2"),
        (lambda: thresholds.EmaRatio(beta=1.0), "between 0 and 1"),
        (lambda: thresholds.EmaRatio(warmup=0), "whole number of steps >= 1"),
        (lambda: thresholds.EmaRatio(warmup=True), "whole number of steps >= 1"),
        (lambda: thresholds.EmaRatio(floor=0), "between 0 and 1"),
        (lambda: thresholds.Ema(0.9), ">= 1"),
        (lambda: thresholds.Ema(gradclip.Linear(1.2, 0.9, 10)), ">= 1"),
        (lambda: thresholds.Ema(min_gain=1.0), r"in \[0, 1\)"),
        (lambda: thresholds.Ema(min_gain=-0.1), r"in \[0, 1\)"),
        (lambda: gradclip.Band(gradclip.Linear(0.5, 1.1, 10)), "between 0 and 1"),
        (lambda: gradclip.Band(float("nan")), "not NaN"),
        (lambda: gradclip.Linear(1, 2, 10, -1), "whole number of steps >= 0"),
        (lambda: gradclip.Cosine(1, 2, 10, 0.5), "whole number of steps >= 0"),
        (lambda: thresholds.Mean(1.0), "between 0 and 1"),
        (lambda: thresholds.Mean(0), "between 0 and 1"),
        (lambda: thresholds.Moments(1.5), "between 0 and 1"),
        (lambda: thresholds.Moments(0.7, float("nan")), "not NaN"),
        (lambda: gradclip.stable_spam(2), "between 0 and 1"),
        (lambda: thresholds.Growth(0.99), ">= 1"),
        (lambda: thresholds.Growth(floor=1), "between 0 and 1"),
        (lambda: thresholds.SecondMoment(beta=float("nan")), "not NaN"),
        (lambda: thresholds.Trust(-0.1), "must be > 0"),
    ],
)
def test_a_number_out_of_range_is_refused_when_built(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


def test_minimum_takes_thresholds_only():
    with pytest.raises(ValueError, match="write at least one"):
        thresholds.Minimum()
    with pytest.raises(TypeError, match="not of float"):
        thresholds.Minimum(thresholds.Growth(), 1.0)


def test_a_rule_that_learns_needs_a_place_to_learn_in():
    with pytest.raises(ValueError, match=r"use gradclip\.Clipper"):
        gradclip.clip_(made(), gradclip.zclip())


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_nothing_to_clip_is_no_error(spelling):
    clipper = gradclip.Clipper([], spelling)
    clipper.clip_()
    clipper.load_state_dict(clipper.state_dict())
    frozen = gradclip.Clipper(made(), spelling)
    assert not bool(frozen.clip_().clipped)
