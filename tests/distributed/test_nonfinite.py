"""A NaN or Inf on one rank: all ranks do the same, and its tensor is named on all."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributed.tensor import DTensor

import gradclip
from gradclip import NonFiniteGradientError
from tests.distributed.support import (
    PLACED,
    alike,
    assert_same,
    give,
    gradients,
    mesh_of,
    sharded,
    whole,
)

RECIPES = [
    "global_norm:1.0",
    "global_norm:1,norm=inf",
    "tensor_norm:0.5",
    "agc:0.01",
    "value:0.3",
    "value:-0.1,0.5",
    "spam:0.5",
]


def _poisoned(bad: float, where: str) -> dict[str, torch.Tensor]:
    grads = gradients(whole(), 1)
    grads[where].view(-1)[-1] = bad  # on the last rank that has any of it
    return grads


def _policy(recipe: str, policy: str, bad: float, where: str, shape: tuple[int, ...]) -> object:
    clipping = f"{recipe},nonfinite={policy}"
    wanted = whole()
    had = sharded(wanted, mesh_of(shape), PLACED[len(shape)])
    one, two = gradclip.Clipper(wanted, clipping), gradclip.Clipper(had, clipping)
    for grads in (gradients(wanted, 0), _poisoned(bad, where), gradients(wanted, 2)):
        give(wanted, grads)
        give(had, grads)
        assert_same(one.clip_(), two.clip_(), wanted, had)
    assert (one.skipped, one.step) == (two.skipped, two.step)
    return two.skipped


@pytest.mark.filterwarnings("ignore:gradclip skipped a step")
@pytest.mark.parametrize("policy", ["skip", "zero", "propagate"])
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_policy(ranks, recipe, policy, bad):
    assert alike(ranks(4, _policy, recipe, policy, bad, "embed.weight", (2, 2))) == (policy == "skip")


def _raises(where: str) -> tuple[tuple[str, ...], bool]:
    had = sharded(whole(), mesh_of((4,)), PLACED[1])
    give(had, _poisoned(math.nan, where))
    before = [p.grad._local_tensor.clone() if isinstance(p.grad, DTensor) else p.grad.clone() for p in had.values()]
    with pytest.raises(NonFiniteGradientError) as caught:
        gradclip.clip_(had, "global_norm:0.1,nonfinite=raise")
    after = [p.grad._local_tensor if isinstance(p.grad, DTensor) else p.grad for p in had.values()]
    return caught.value.names, all(torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("where", ["embed.weight", "gain", "layer.weight"])
def test_raise_names_the_tensor_on_every_rank_and_changes_nothing(ranks, where):
    assert alike(ranks(4, _raises, where)) == ((where,), True)


def _patience() -> tuple[int, str]:
    had = sharded(whole(), mesh_of((4,)), PLACED[1])
    clipper = gradclip.Clipper(had, gradclip.global_norm(1.0, nonfinite=gradclip.Skip(patience=2)))
    give(had, _poisoned(math.nan, "gain"))
    with pytest.warns(RuntimeWarning, match="non-finite gradient in 'gain'"):
        clipper.clip_()
    give(had, _poisoned(math.nan, "gain"))
    with pytest.raises(NonFiniteGradientError, match="2 steps in a row") as caught:
        clipper.clip_()
    return clipper.skipped, str(caught.value)


def test_patience_ends_on_every_rank(ranks):
    assert alike(ranks(4, _patience))[0] == 2
