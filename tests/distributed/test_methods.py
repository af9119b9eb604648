"""Every scope, norm and rule gives sharded gradients what it gives whole ones, on every rank."""

from __future__ import annotations

import pytest
import torch
from torch.distributed.tensor import Replicate, Shard

import gradclip
from tests.distributed.support import MESHES, PLACED, SHAPES, alike, gradients, mesh_of, run_both, whole

GIVEN = [
    "global_norm:1.0",
    "global_norm:5,norm=1",
    "global_norm:0.5,norm=inf",
    "global_norm:1,norm=3",
    "global_norm:1,norm=7",
    "global_norm:0.5,norm=rms",
    "global_norm:1e9",
    "global_norm:1,exclude=layer.*",
    "tensor_norm:0.7",
    "tensor_norm:0.7,norm=inf",
    "tensor_norm:0.5,norm=rms,exclude=gain",
    "block_rms:0.5",
    "group_norm:0.5|1.0,patterns=layer.*|*",
    "normalize:2",
    "normalize:2,soft=True",
    "agc:0.01",
    "agc:0.3,axis=-1",
    "value:0.3",
    "value:-0.1,0.5",
    "value:0,0.5",
    "value:0.3,exclude=conv.*",
    "value:-0.1,0.5,exclude=conv.*",
    "value:1e9",
    "value:-1e9,1e8",
]
LEARNED = [
    "autoclip:50",
    "quantile:0.5",
    "quantile:0.5,per_tensor=True",
    "zclip:0.5,warmup=2",
    "adagc:1.01,warmup=2",
    "aggc:1.01,low=0.99,patterns=layer.*|*",
    "norm_growth:1.001",
    "spam:0.5,warmup=1",
    "stable_spam",
    "skip_step:0.5,window=8,after=2",
]
TRUST = ["trust:0.02", "trust:0.02,per_tensor=True", "auto"]


def _run(
    recipe: str, shape: tuple[int, ...], dtype: torch.dtype, steps: int, lr: float | None, scale: float = 1.0
) -> list[float]:
    parameters = whole(dtype=dtype)
    grads = [gradients(parameters, seed, scale * (1 + 3 * (seed % 3))) for seed in range(steps)]
    return run_both(recipe, mesh_of(shape), PLACED[len(shape)], parameters, grads, lr)


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("recipe", GIVEN)
def test_a_given_threshold(ranks, recipe, mesh):
    shape = MESHES[mesh]
    count = torch.Size(shape).numel()
    assert len(alike(ranks(count, _run, recipe, shape, torch.float32, 2, None))) == 2


@pytest.mark.parametrize("mesh", ["2", "2x2"])
@pytest.mark.parametrize("recipe", LEARNED)
def test_a_learned_threshold(ranks, recipe, mesh):
    shape = MESHES[mesh]
    assert len(alike(ranks(torch.Size(shape).numel(), _run, recipe, shape, torch.float32, 6, None))) == 6


@pytest.mark.parametrize("recipe", TRUST)
def test_a_threshold_that_knows_the_optimizer(ranks, recipe):
    assert len(alike(ranks(4, _run, recipe, (2, 2), torch.float32, 4, 0.1))) == 4


def test_a_chain(ranks):
    chain = gradclip.Chain(gradclip.spam(0.5, warmup=1), gradclip.zclip(0.5, warmup=2))
    assert len(alike(ranks(4, _run, str(chain), (2, 2), torch.float32, 4, None))) == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("recipe", ["global_norm:1.0", "agc:0.01", "value:0.3", "tensor_norm:0.5,norm=inf"])
def test_a_dtype(ranks, recipe, dtype):
    alike(ranks(4, _run, recipe, (2, 2), dtype, 2, None))


@pytest.mark.parametrize("scale", [1e-170, 1e170])
@pytest.mark.parametrize("recipe", ["global_norm:1e-180", "tensor_norm:1.0,norm=3", "agc:0.01"])
def test_powers_neither_vanish_nor_overflow(ranks, recipe, scale):
    alike(ranks(2, _run_sized, recipe, scale))


def _run_sized(recipe: str, scale: float) -> list[float]:
    parameters = whole(dtype=torch.float64)
    grads = [{n: g * scale for n, g in gradients(parameters, 0).items()}]
    return run_both(recipe, mesh_of((2,)), PLACED[1], parameters, grads)


def _strided() -> list[float]:
    """FSDP2 over tensor parallelism on one axis, in its own placement, which is no ``Shard``."""
    from torch.distributed.tensor.placement_types import _StridedShard

    mesh = mesh_of((2, 2))
    placed = {"w": [_StridedShard(0, split_factor=2), Shard(0)], "b": [Replicate(), Shard(0)]}
    for recipe in ("global_norm:1.0", "agc:0.01", "tensor_norm:0.5", "value:0.1"):
        parameters = whole({"w": (8, 3), "b": (8,)})
        norms = run_both(recipe, mesh, placed, parameters, [gradients(parameters, 3)])
    return norms


def test_strided_shards(ranks):
    alike(ranks(4, _strided))


def test_shapes_are_uneven_and_empty():
    """What the cases above rest on."""
    assert SHAPES["embed.weight"][0] % 4
    assert SHAPES["gain"] == (1,)
    assert 0 in SHAPES["empty"]
