"""``group=``: plain tensors that are cut by hand, and pipeline stages."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard

import gradclip
from gradclip import TargetError
from tests.distributed.support import Counter, Named, alike, full, give, gradients, sharded, whole

SHAPES = {"a": (7,), "b": (10,), "c": (1,)}


def _cut(named: Named) -> Named:
    """Each rank's stretch of flat tensors, uneven, empty where there is nothing left."""
    rank, count, cut = dist.get_rank(), dist.get_world_size(), {}
    for name, p in named.items():
        chunks = [*p.detach().tensor_split(count)]
        cut[name] = nn.Parameter(chunks[rank].clone())
        cut[name].grad = None if p.grad is None else p.grad.tensor_split(count)[rank].clone()
    return cut


def _parts(recipe: str, as_mesh: bool, way: str) -> float:
    group = init_device_mesh("cpu", (4,), mesh_dim_names=("dp",)) if as_mesh else dist.group.WORLD
    wanted = whole(SHAPES)
    give(wanted, gradients(wanted, 1))
    had = _cut(wanted)
    if way == "clip_":
        want, have = gradclip.clip_(wanted, recipe), gradclip.clip_(had, recipe, group=group)
    elif way == "Clipper":
        want, have = gradclip.Clipper(wanted, recipe).clip_(), gradclip.Clipper(had, recipe, group=group).clip_()
    else:
        results = []
        for named, own in ((wanted, None), (had, group)):
            optimizer = torch.optim.SGD(named.values(), lr=0.1, momentum=0.9)
            handle = gradclip.attach(optimizer, recipe, group=own)
            optimizer.step()
            results.append(handle.result)
        want, have = results
    torch.testing.assert_close(have.tensor_norms, want.tensor_norms, rtol=1e-6, atol=0)
    torch.testing.assert_close(have.norm, want.norm, rtol=1e-6, atol=0)
    assert bool(have.clipped) == bool(want.clipped)
    for name, p in _cut(wanted).items():
        torch.testing.assert_close(had[name].grad, p.grad)
        torch.testing.assert_close(had[name].detach(), p.detach())
    return float(have.norm)


@pytest.mark.parametrize("way", ["clip_", "Clipper", "attach"])
@pytest.mark.parametrize(
    "recipe", ["global_norm:0.5", "tensor_norm:0.5,norm=rms", "value:0.3", "value:-0.1,0.5", "block_rms:0.3"]
)
def test_parts_cut_by_hand(ranks, recipe, way):
    alike(ranks(4, _parts, recipe, way == "clip_", way))


def _rules(recipe: str) -> list[float]:
    wanted = whole(SHAPES)
    had = _cut(wanted)
    one, two = gradclip.Clipper(wanted, recipe), gradclip.Clipper(had, recipe, group=dist.group.WORLD)
    norms = []
    for seed in range(5):
        give(wanted, gradients(wanted, seed))
        for name, p in _cut(wanted).items():
            had[name].grad = p.grad
        want, have = one.clip_(), two.clip_()
        torch.testing.assert_close(have.clipped_tensor_norms, want.clipped_tensor_norms, rtol=1e-6, atol=0)
        norms.append(float(have.norm))
    return norms


@pytest.mark.parametrize("recipe", ["zclip:0.5,warmup=2", "adagc:1.01,warmup=2", "spam:0.5,warmup=1", "stable_spam"])
def test_parts_and_learned_rules(ranks, recipe):
    alike(ranks(4, _rules, recipe))


def _units() -> str:
    named = {"w": nn.Parameter(torch.ones(2, 3))}
    named["w"].grad = torch.ones(2, 3)
    with pytest.raises(TargetError, match=r"DTensor\.from_local") as caught:
        gradclip.clip_(named, "agc:0.01", group=dist.group.WORLD)
    return str(caught.value)


def test_nobody_knows_the_units_of_parts(ranks):
    alike(ranks(2, _units))


STAGES = {
    "tied.weight": (6, 3),
    "first.weight": (4, 3),
    "first.bias": (4,),
    "second.weight": (2, 4),
    "third.weight": (3, 2),
    "third.bias": (3,),
}
OWN = [
    ("tied.weight", "first.weight", "first.bias"),
    ("second.weight",),
    (),
    ("third.weight", "third.bias", "tied.weight"),
]
"""What each of four stages has; the third has nothing."""


def _stage(recipe: str, nan_on: int | None = None) -> list[object]:
    wanted = whole(STAGES)
    had = {name: nn.Parameter(wanted[name].detach().clone()) for name in OWN[dist.get_rank()]}
    one, two = gradclip.Clipper(wanted, recipe), gradclip.Clipper(had, recipe, group=dist.group.WORLD)
    assert two.names == one.names
    seen: list[object] = []
    for seed in range(4):
        grads = gradients(wanted, seed)
        if nan_on == seed:
            grads["second.weight"][0, 0] = float("nan")
        give(wanted, grads)
        give(had, {name: grads[name] for name in had})
        with Counter().counting() as counter:
            want, have = one.clip_(), two.clip_()
        assert counter.calls == [("all_reduce", 4)]
        for field in ("norm", "clipped_norm", "tensor_norms", "clipped_tensor_norms"):
            torch.testing.assert_close(getattr(have, field), getattr(want, field), rtol=1e-6, atol=0, equal_nan=True)
        assert (have.nonfinite_names, have.skipped) == (want.nonfinite_names, want.skipped)
        for name, p in had.items():
            expected = wanted[name].grad
            assert (p.grad is None) == (expected is None)
            if expected is not None:
                torch.testing.assert_close(p.grad, expected)
        seen.append((float(have.clipped_norm), have.worst))
    return seen


@pytest.mark.parametrize(
    "recipe",
    [
        "global_norm:0.5",
        "global_norm:0.5,norm=inf",
        "global_norm:0.5,norm=rms",
        "group_norm:0.5|1.0,patterns=first.*|*",
        "tensor_norm:0.5",
        "agc:0.01",
        "value:0.3",
        "value:-0.1,0.5",
        "zclip:0.5,warmup=2",
        "adagc:1.01,warmup=2",
        "spam:0.5,warmup=1",
        "global_norm:0.5,exclude=first.*",
    ],
)
def test_stages_see_all_tensors_and_count_tied_ones_once(ranks, recipe):
    alike(ranks(4, _stage, recipe))


@pytest.mark.filterwarnings("ignore:gradclip skipped a step")
def test_a_nan_on_one_stage_skips_the_step_on_all(ranks):
    seen = ranks(4, _stage, "global_norm:0.5", 2)
    assert alike([[norm for norm, _ in own] for own in seen])[2] == 0


def _sharded_stages() -> float:
    """Two stages of two ranks, each stage sharded over its own mesh."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("pp", "dp"))
    stage = mesh.get_local_rank("pp")
    wanted = whole({"tied": (5, 3), "one": (4, 3), "two": (3, 3)})
    own = {name: wanted[name] for name in (("tied", "one") if stage == 0 else ("two", "tied"))}
    had = sharded(own, mesh["dp"], {name: [Shard(0)] for name in own})
    for recipe in ("global_norm:0.5", "agc:0.01", "tensor_norm:0.4,norm=inf"):
        grads = gradients(wanted, 1)
        give(wanted, grads)
        give(had, {name: grads[name] for name in had})
        want, have = gradclip.clip_(wanted, recipe), gradclip.clip_(had, recipe, group=mesh["pp"])
        torch.testing.assert_close(have.tensor_norms, want.tensor_norms, rtol=1e-6, atol=0)
        torch.testing.assert_close(have.norm, want.norm, rtol=1e-6, atol=0)
        for name, p in had.items():
            torch.testing.assert_close(full(p.grad), wanted[name].grad)
    return float(have.norm)


def test_stages_that_are_sharded(ranks):
    alike(ranks(4, _sharded_stages))


def _tensor_norms() -> dict[str, float]:
    wanted = whole(STAGES)
    give(wanted, gradients(wanted, 0))
    had = {name: wanted[name] for name in OWN[dist.get_rank()]}
    have = gradclip.tensor_norms(had, group=dist.group.WORLD)
    assert have == pytest.approx(gradclip.tensor_norms(wanted), rel=1e-6)
    return have


def test_tensor_norms_of_all_stages(ranks):
    alike(ranks(4, _tensor_norms))


def _in_optimizer() -> float:
    wanted = whole(STAGES)
    had = {name: nn.Parameter(wanted[name].detach().clone()) for name in OWN[dist.get_rank()] or ()}
    results = []
    for named, group in ((wanted, None), (had or {"nothing": nn.Parameter(torch.zeros(0))}, dist.group.WORLD)):
        optimizer = torch.optim.AdamW(named.values(), lr=0.1, fused=True)
        handle = gradclip.attach(optimizer, "global_norm:0.5", parameters=named, group=group)
        grads = gradients(wanted, 0) | {"nothing": torch.zeros(0)}
        give(named, {name: grads[name] for name in named})
        optimizer.step()
        results.append(handle.result)
    torch.testing.assert_close(results[1].norm, results[0].norm, rtol=1e-6, atol=0)
    for name, p in had.items():
        torch.testing.assert_close(p.detach(), wanted[name].detach())
    return float(results[1].norm)


def test_attach_on_stages(ranks):
    alike(ranks(4, _in_optimizer))


def _rates() -> str:
    had = {f"stage{dist.get_rank()}": nn.Parameter(torch.ones(2))}
    optimizer = torch.optim.SGD(had.values(), lr=0.1)
    with pytest.raises(TargetError, match="learning rates of parameters that are on other stages") as caught:
        gradclip.attach(optimizer, "trust:0.02", parameters=had, group=dist.group.WORLD)
    return str(caught.value)


def test_learning_rates_of_other_stages_are_not_known(ranks):
    alike(ranks(2, _rates))
