"""Whole tensors and the same ones sharded, and the comparison of what a method makes of both. All of it runs on the ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

import gradclip
from gradclip import ClipResult

Named = dict[str, nn.Parameter]

SHAPES = {
    "embed.weight": (9, 4),
    "layer.weight": (5, 3),
    "layer.bias": (5,),
    "conv.weight": (4, 3, 2, 2),
    "gain": (1,),  # on one rank only
    "norm.weight": (7,),
    "scale": (),
    "empty": (0, 3),
}
PLACED: dict[int, dict[str, list[Any]]] = {
    1: {
        "embed.weight": [Shard(0)],
        "layer.weight": [Shard(1)],
        "layer.bias": [Shard(0)],
        "conv.weight": [Shard(0)],
        "gain": [Shard(0)],
        "norm.weight": [Replicate()],
        "empty": [Shard(0)],
    },
    2: {
        "embed.weight": [Shard(0), Shard(0)],
        "layer.weight": [Shard(0), Shard(1)],
        "layer.bias": [Replicate(), Shard(0)],
        "conv.weight": [Shard(1), Replicate()],
        "gain": [Shard(0), Replicate()],
        "norm.weight": [Replicate(), Replicate()],
        "empty": [Shard(1), Shard(0)],
    },
}
"""Where each tensor goes on a mesh of so many dimensions; what is not in it stays plain."""

MESHES = {"2": (2,), "4": (4,), "2x2": (2, 2)}
NAMES = {1: ("dp",), 2: ("dp", "tp")}


def mesh_of(shape: Sequence[int]) -> DeviceMesh:
    return init_device_mesh("cpu", tuple(shape), mesh_dim_names=NAMES[len(shape)])


def whole(shapes: Mapping[str, Sequence[int]] = SHAPES, dtype: torch.dtype = torch.float32, seed: int = 0) -> Named:
    """Parameters, the same on every rank."""
    made = torch.Generator().manual_seed(seed)
    return {name: nn.Parameter(torch.randn(tuple(shape), generator=made).to(dtype)) for name, shape in shapes.items()}


def gradients(parameters: Named, seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(seed + 100)
    return {n: (torch.randn(p.shape, generator=made) * scale).to(p.dtype) for n, p in parameters.items()}


def sharded(parameters: Named, mesh: DeviceMesh, placed: Mapping[str, Sequence[Any]]) -> Named:
    return {n: nn.Parameter(put(p.detach(), mesh, placed.get(n)), p.requires_grad) for n, p in parameters.items()}


def put(tensor: Tensor, mesh: DeviceMesh, placements: Sequence[Any] | None) -> Tensor:
    if placements is None:
        return tensor.clone()
    return distribute_tensor(tensor.clone(), mesh, list(placements), src_data_rank=None)


def give(parameters: Named, grads: Mapping[str, Tensor | None]) -> None:
    """Give parameters these gradients, each rank its parts."""
    for name, p in parameters.items():
        grad = grads[name]
        placements = p.placements if isinstance(p, DTensor) else None
        p.grad = None if grad is None else put(grad, getattr(p, "device_mesh", None), placements)


def full(tensor: Tensor | None) -> Tensor | None:
    if isinstance(tensor, DTensor):
        return tensor.full_tensor()
    return tensor


def assert_same(want: ClipResult, have: ClipResult, wanted: Named, had: Named, rtol: float = 1e-6) -> None:
    """Assert that two results and the gradients after them are the same."""
    assert type(have.norm) is type(want.norm)
    for field in ("norm", "clipped_norm", "tensor_norms", "clipped_tensor_norms"):
        torch.testing.assert_close(getattr(have, field), getattr(want, field), rtol=rtol, atol=1e-12, equal_nan=True, msg=field)
    assert bool(want.clipped) == bool(have.clipped)
    assert bool(want.finite) == bool(have.finite)
    assert (want.skipped, want.nonfinite_names, want.names) == (have.skipped, have.nonfinite_names, have.names)
    assert_same_gradients(wanted, had)


def assert_same_gradients(wanted: Named, had: Named) -> None:
    for name, p in wanted.items():
        grad = full(had[name].grad)
        assert (grad is None) == (p.grad is None), name
        if grad is not None:
            # A step between neighbours of a short dtype, where norms that differ in their last digits round to both sides.
            rtol = {torch.float64: 1e-13, torch.float32: 3e-7, torch.float16: 1e-3, torch.bfloat16: 8e-3}[p.dtype]
            torch.testing.assert_close(grad, p.grad, rtol=rtol, atol=1e-30, equal_nan=True, msg=name)


def run_both(
    recipe: str,
    mesh: DeviceMesh,
    placed: Mapping[str, Sequence[Any]],
    parameters: Named,
    steps: Sequence[Mapping[str, Tensor | None]],
    lr: float | None = None,
) -> list[float]:
    """Clip whole and sharded gradients step after step, compare, and return the norms.

    With a learning rate inside an optimizer, which takes the steps.
    """
    other = sharded(parameters, mesh, placed)
    if lr is None:
        one, two = gradclip.Clipper(parameters, recipe), gradclip.Clipper(other, recipe)
        clip = (one.clip_, two.clip_)
    else:
        clip = tuple(_attached(named, recipe, lr) for named in (parameters, other))
    norms = []
    for grads in steps:
        give(parameters, grads)
        give(other, grads)
        want, have = (each() for each in clip)
        assert_same(want, have, parameters, other)
        norms.append(float(have.norm))
    return norms


def _attached(named: Named, recipe: str, lr: float) -> Callable[[], ClipResult]:
    optimizer = torch.optim.SGD(named.values(), lr=lr, foreach=False)
    handle = gradclip.attach(optimizer, recipe, parameters=named)

    def step() -> ClipResult:
        optimizer.step()
        assert handle.result is not None
        return handle.result

    return step


def alike(values: Sequence[Any]) -> Any:
    """Assert that every rank returned the same, and return it."""
    assert all(value == values[0] or (value != value and values[0] != values[0]) for value in values), values
    return values[0]


class Counter:
    """How often each collective is called, and on how many ranks."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    @contextmanager
    def counting(self):
        before = {name: getattr(dist, name) for name in ("all_reduce", "all_gather_object", "all_gather", "broadcast")}

        def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                self.calls.append((name, dist.get_world_size(kwargs.get("group"))))
                return call(*args, **kwargs)

            return wrapper

        for name, call in before.items():
            setattr(dist, name, counted(name, call))
        try:
            yield self
        finally:
            for name, call in before.items():
                setattr(dist, name, call)


def finite(values: Sequence[float]) -> bool:
    return all(map(math.isfinite, values))
