"""Meshes, placements, shapes, dtypes and recipes, drawn together."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

import gradclip
from tests.distributed.support import Named, alike, assert_same, give, gradients, mesh_of, sharded, whole

RECIPES = [
    "global_norm:0.7",
    "global_norm:0.7,norm=1",
    "global_norm:0.7,norm=inf",
    "global_norm:0.3,norm=rms",
    "tensor_norm:0.4,norm=3",
    "block_rms:0.2",
    "agc:0.05",
    "agc:0.05,axis=-1",
    "value:0.3",
    "value:-0.2,0.4",
    "normalize:1",
    "adagc:1.01,warmup=1",
    "zclip:0.5,warmup=2",
    "spam:0.5,warmup=1",
    "stable_spam",
]
MESHES = [(2,), (4,), (2, 2)]


@st.composite
def tensors(draw: Any, dims: int) -> tuple[tuple[int, ...], list[int] | None, bool, bool]:
    """A shape, for each dimension of the mesh the axis that it cuts (-1 for none) or None for a plain tensor; whether it has a
    gradient, and whether that is left as summands where it is not cut."""
    shape = tuple(draw(st.lists(st.integers(0, 6), max_size=3)))
    plain = not shape or draw(st.integers(0, 4)) == 0
    axes = None if plain else [draw(st.integers(-1, len(shape) - 1)) for _ in range(dims)]
    return shape, axes, draw(st.integers(0, 5)) > 0, draw(st.booleans())


@st.composite
def cases(draw: Any) -> tuple[Any, ...]:
    mesh = draw(st.sampled_from(MESHES))
    listed = draw(st.lists(tensors(len(mesh)), min_size=1, max_size=5))
    dtype = draw(st.sampled_from([torch.float32, torch.float32, torch.bfloat16, torch.float64]))
    return mesh, listed, dtype, draw(st.sampled_from(RECIPES)), draw(st.integers(0, 1000))


def _left_as_summands(p: DTensor) -> Tensor:
    """The same gradient, of which each replica has an equal share: a half or a quarter, so that they add up exactly."""
    grad: Any = p.grad
    placements = [Partial() if placement.is_replicate() else placement for placement in grad.placements]
    copies = 1
    for dim, placement in enumerate(placements):
        copies *= p.device_mesh.size(dim) if placement.is_partial() else 1
    return DTensor.from_local(
        grad._local_tensor / copies, p.device_mesh, placements, run_check=False, shape=grad.shape, stride=grad.stride()
    )


def _both(
    shape: tuple[int, ...], listed: list[tuple[Any, ...]], dtype: torch.dtype, recipe: str, seed: int
) -> list[tuple[float, float]]:
    mesh = mesh_of(shape)
    wanted: Named = whole({f"t{i}": own for i, (own, *_) in enumerate(listed)}, dtype, seed)
    placed = {
        f"t{i}": [Replicate() if axis < 0 else Shard(axis) for axis in axes]
        for i, (_, axes, *_) in enumerate(listed)
        if axes is not None
    }
    had = sharded(wanted, mesh, placed)
    one, two = gradclip.Clipper(wanted, recipe), gradclip.Clipper(had, recipe)
    norms = []
    for step in range(3):
        grads: dict[str, Tensor | None] = dict(gradients(wanted, seed + step, 1.0 + step))
        grads |= {f"t{i}": None for i, (*_, there, _) in enumerate(listed) if not there}
        give(wanted, grads)
        give(had, grads)
        for i, (_, axes, there, summands) in enumerate(listed):
            if axes is not None and there and summands:
                had[f"t{i}"].grad = _left_as_summands(had[f"t{i}"])
        want, have = one.clip_(), two.clip_()
        assert_same(want, have, wanted, had)
        norms.append((float(have.norm), float(have.clipped_norm)))
    return norms


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_sharded_is_whole(ranks, case):
    mesh, *rest = case
    alike(ranks(torch.Size(mesh).numel(), _both, mesh, *rest))
