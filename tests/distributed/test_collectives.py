"""How many collectives a step takes: one packed all-reduce for each set of ranks, whatever is measured."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.debug import CommDebugMode

import gradclip
import gradclip.torch as drop_in
from tests.distributed.support import Counter, alike, give, gradients, mesh_of, sharded, whole

RECIPES = [
    "global_norm:1.0",
    "global_norm:1.0,norm=inf",
    "global_norm:0.5,norm=rms",
    "tensor_norm:0.5",
    "agc:0.01",
    "value:0.3",
    "value:-0.1,0.5",
    "spam:0.5,warmup=1",
    "adagc:1.01,warmup=2",
    "quantile:0.5",
    "zclip:0.5,warmup=2",
]


def _steps(recipe: str, tensors: int, lr: bool) -> list[tuple[str, int]]:
    mesh = mesh_of((4,))
    shapes = {f"layer{i}": (5 + i, 3) for i in range(tensors)}
    placed = {name: [Shard(i % 2)] for i, name in enumerate(shapes)}
    had = sharded(whole(shapes), mesh, placed)
    optimizer = torch.optim.SGD(had.values(), lr=0.1, foreach=False)
    clipper = gradclip.Clipper(had, recipe, optimizer=optimizer) if lr else gradclip.Clipper(had, recipe)
    for seed in range(2):
        give(had, gradients(had, seed))
        with Counter().counting() as counter, CommDebugMode() as comms:
            result = clipper.clip_()
            assert comms.get_total_counts() == 1
            str(result), result.asdict(), result.worst, str(result.limits)  # reading asks nobody
            assert comms.get_total_counts() == 1
    return counter.calls


@pytest.mark.parametrize("tensors", [1, 23])
@pytest.mark.parametrize("recipe", RECIPES)
def test_one_packed_all_reduce(ranks, recipe, tensors):
    assert alike(ranks(4, _steps, recipe, tensors, False)) == [("all_reduce", 4)]


@pytest.mark.parametrize("recipe", ["trust:0.02", "trust:0.02,per_tensor=True", "auto"])
def test_weights_are_packed_with_gradients(ranks, recipe):
    assert alike(ranks(4, _steps, recipe, 5, True)) == [("all_reduce", 4)]


def _on_two_dimensions(sets: list[str]) -> list[tuple[str, int]]:
    mesh = mesh_of((2, 2))
    placements = {
        "both": [Shard(0), Shard(1)],
        "first": [Shard(0), Replicate()],
        "second": [Replicate(), Shard(0)],
        "none": [Replicate(), Replicate()],
    }
    shapes = {f"{name}{i}": (4, 4) for name in sets for i in range(3)}
    had = sharded(whole(shapes), mesh, {name: placements[name[:-1]] for name in shapes})
    clipper = gradclip.Clipper(had, "agc:0.01")
    give(had, gradients(had, 0))
    with Counter().counting() as counter:
        clipper.clip_()
    return counter.calls


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (["both", "none"], [4]),
        (["first", "none"], [2]),
        (["both", "first"], [4, 2]),
        (["both", "first", "second", "none"], [4, 2, 2]),
        (["none"], []),
    ],
)
def test_one_for_each_set_of_ranks(ranks, sets, expected):
    assert alike(ranks(4, _on_two_dimensions, sets)) == [("all_reduce", size) for size in expected]


def _inside_a_larger_world() -> list[tuple[str, int]]:
    """A mesh of two dimensions that is not the world has no group over both: one all-reduce for each dimension."""
    mesh = init_device_mesh("cpu", (1, 2, 2), mesh_dim_names=("one", "rows", "columns"))["rows", "columns"]
    dist.new_group([0])  # so that groups are not what they seem by their number
    had = sharded(whole({"a": (4, 4), "b": (6,)}), mesh, {"a": [Shard(0), Shard(1)], "b": [Shard(0), Replicate()]})
    give(had, gradients(had, 0))
    clipper = gradclip.Clipper(had, "tensor_norm:0.5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "get_world_size", lambda group=None, real=dist.get_world_size: 8 if group is None else real(group))
        clipper = gradclip.Clipper(had, "tensor_norm:0.5")
        with Counter().counting() as counter:
            result = clipper.clip_()
    plain = whole({"a": (4, 4), "b": (6,)})
    give(plain, gradients(plain, 0))
    want = gradclip.clip_(plain, "tensor_norm:0.5")
    torch.testing.assert_close(result.tensor_norms, want.tensor_norms, rtol=1e-6, atol=0)
    return counter.calls


def test_two_for_two_dimensions_of_a_larger_world(ranks):
    assert alike(ranks(4, _inside_a_larger_world)) == [("all_reduce", 2)] * 2


def _repeated(function: str) -> list[tuple[str, int]]:
    """What the ranks have agreed on is not asked again: a list that is laid out anew each step."""
    had = sharded(whole({"a": (8, 3), "b": (5,)}), mesh_of((4,)), {"a": [Shard(0)], "b": [Shard(0)]})
    for seed in range(3):
        give(had, gradients(had, seed))
        with Counter().counting() as counter:
            if function == "clip_":
                gradclip.clip_(list(had.values()), "global_norm:1.0")
            else:
                drop_in.clip_grad_norm_(had.values(), 1.0 + seed)
    return counter.calls


@pytest.mark.parametrize("function", ["clip_", "drop_in"])
def test_what_is_agreed_on_is_not_asked_again(ranks, function):
    assert alike(ranks(4, _repeated, function)) == [("all_reduce", 4)]


def _wide(recipe: str) -> list[tuple[str, int]]:
    had = sharded(whole({"a": (8, 3)}, torch.float64), mesh_of((4,)), {"a": [Shard(0)]})
    clipper = gradclip.Clipper(had, recipe)
    give(had, gradients(had, 0))
    with Counter().counting() as counter:
        clipper.clip_()
    return counter.calls


@pytest.mark.parametrize(("recipe", "count"), [("global_norm:1.0", 2), ("global_norm:1.0,norm=inf", 1)])
def test_float64_takes_a_second_one(ranks, recipe, count):
    """Whose squares may overflow: the largest first, by which all are divided."""
    assert alike(ranks(4, _wide, recipe)) == [("all_reduce", 4)] * count
