"""Bad input: a clear error on every rank, before anything is changed, and nobody is left waiting."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard

import gradclip
import gradclip.torch as drop_in
from gradclip import StateError, TargetError
from tests.distributed.support import alike, give, gradients, mesh_of, sharded, whole


def _dtensor(mesh: DeviceMesh, placements, rows: int = 2) -> nn.Parameter:
    p = nn.Parameter(DTensor.from_local(torch.ones(rows, 3), mesh, placements, run_check=False))
    p.grad = DTensor.from_local(torch.ones(rows, 3), mesh, placements, run_check=False)
    return p


def _refused(target, recipe="global_norm:0.1", error=TargetError, **options) -> str:
    """The message, once no gradient has been changed."""
    with pytest.raises(error) as caught:
        gradclip.clip_(target, recipe, **options)
    for p in target.values():
        local = getattr(p.grad, "_local_tensor", p.grad)
        assert torch.equal(local, torch.ones_like(local))
    return str(caught.value)


def _another_mesh() -> str:
    order = [0, 1, 2, 3] if dist.get_rank() != 2 else [3, 2, 1, 0]
    return _refused({"w": _dtensor(DeviceMesh("cpu", order), [Shard(0)])})


def test_a_mesh_that_one_rank_sees_differently(ranks):
    text = alike(ranks(4, _another_mesh))
    assert "ranks 0 and 2 see their mesh differently: " in text
    assert "[[0, 1, 2, 3]] and [[3, 2, 1, 0]]" in text


def _another_placement() -> str:
    placements = [Shard(0)] if dist.get_rank() != 1 else [Replicate()]
    return _refused({"v": _dtensor(mesh_of((4,)), [Shard(0)]), "w": _dtensor(mesh_of((4,)), placements)})


def test_a_placement_that_one_rank_sees_differently(ranks):
    text = alike(ranks(4, _another_placement))
    assert "ranks 0 and 1 disagree: 'w' of shape (8, 3)" in text
    assert "and 'w' of shape (2, 3)" in text


def _another_name() -> str:
    name = "w" if dist.get_rank() else "x"
    return _refused({name: _dtensor(mesh_of((2,)), [Shard(0)])})


def test_names_that_differ(ranks):
    assert "ranks 0 and 1 disagree: 'x' of shape (4, 3)" in alike(ranks(2, _another_name))


def _fewer_tensors() -> str:
    target = {"v": _dtensor(mesh_of((2,)), [Shard(0)])}
    if dist.get_rank():
        target["w"] = _dtensor(mesh_of((2,)), [Shard(0)])
    return _refused(target)


def test_another_number_of_tensors(ranks):
    assert "ranks 0 and 1 clip 1 and 2 tensors" in alike(ranks(2, _fewer_tensors))


def _another_method(group: bool) -> str:
    recipe = "global_norm:0.1" if dist.get_rank() else "global_norm:0.2"
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    target = {"w": p if group else _dtensor(mesh_of((2,)), [Shard(0)])}
    return _refused(target, recipe, group=dist.group.WORLD if group else None)


@pytest.mark.parametrize("group", [False, True])
def test_another_method(ranks, group):
    text = alike(ranks(2, _another_method, group))
    assert "global_norm:0.1" in text
    assert "global_norm:0.2" in text


def _heard_of_in_another_group() -> str:
    """Ranks 0 and 1 differ in what they share; 2 and 3 hear of it through the meshes that join them."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    placements = [Shard(0)] if dist.get_rank() != 1 else [Replicate()]
    return _refused({"w": _dtensor(mesh["tp"], placements), "v": _dtensor(mesh["dp"], [Shard(0)])})


def test_every_rank_hears_of_it(ranks):
    texts = ranks(4, _heard_of_in_another_group)
    assert all("disagree" in text for text in texts), texts


def _stranger() -> str:
    group = dist.new_group([0, 1])
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    if dist.get_rank() < 2:
        return str(float(gradclip.clip_({"w": p}, "global_norm:0.1", group=group).norm))
    return _refused({"w": p}, group=group)


def test_a_group_that_a_rank_is_not_in(ranks):
    texts = ranks(3, _stranger)
    assert texts[:2] == ["2.0", "2.0"]
    assert "rank 2 is not in the group that was passed" in texts[2]


def _two_dimensions() -> str:
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    return _refused({"w": p}, group=mesh_of((2, 2)))


def test_a_mesh_of_two_dimensions_as_a_group(ranks):
    assert "one dimension, not 2: write mesh['name of the dimension']" in alike(ranks(4, _two_dimensions))


def _no_group() -> str:
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    return _refused({"w": p}, error=TypeError, group="world")


def test_something_else_as_a_group(ranks):
    assert "not str" in alike(ranks(2, _no_group))


def test_an_uninitialised_process_group():
    with pytest.raises(TargetError, match=r"call torch\.distributed\.init_process_group first"):
        gradclip.clip_({"w": nn.Parameter(torch.ones(2))}, "global_norm:1.0", group=object())


def _unnamed_stages() -> str:
    target = [nn.Parameter(torch.ones(2)) for _ in range(1 + dist.get_rank())]
    with pytest.raises(TargetError) as caught:
        gradclip.clip_(target, "global_norm:1.0", group=dist.group.WORLD)
    return str(caught.value)


def test_stages_without_names(ranks):
    assert "pass 1, 2 parameters without names" in alike(ranks(2, _unnamed_stages))


def _copies_that_differ() -> str:
    target = {"tied": nn.Parameter(torch.ones(2 + dist.get_rank())), f"own{dist.get_rank()}": nn.Parameter(torch.ones(1))}
    with pytest.raises(TargetError) as caught:
        gradclip.clip_(target, "global_norm:1.0", group=dist.group.WORLD)
    return str(caught.value)


def test_copies_of_different_shapes(ranks):
    assert "'tied' has the shapes (2,) and (3,)" in alike(ranks(2, _copies_that_differ))


def _another_order() -> str:
    names = ["a", "b"] if dist.get_rank() else ["b", "a"]
    with pytest.raises(TargetError) as caught:
        gradclip.clip_({name: nn.Parameter(torch.ones(2)) for name in names}, "global_norm:1.0", group=dist.group.WORLD)
    return str(caught.value)


def test_parts_in_different_orders(ranks):
    assert "different orders" in alike(ranks(2, _another_order))


def _foreign_state() -> tuple[str, int]:
    had = sharded(whole({"a": (8, 3)}), mesh_of((4,)), {"a": [Shard(0)]})
    other = sharded(whole({"a": (8, 3), "b": (3,)}), mesh_of((4,)), {"a": [Shard(0)]})
    clipper, foreign = gradclip.Clipper(had, "adagc"), gradclip.Clipper(other, "adagc")
    give(other, gradients(other, 0))
    foreign.clip_()
    with pytest.raises(StateError) as caught:
        clipper.load_state_dict(foreign.state_dict())
    return str(caught.value), clipper.step


def test_a_state_of_other_parameters(ranks):
    text, step = alike(ranks(4, _foreign_state))
    assert "was the model changed?" in text
    assert step == 0


def _another_drop_in() -> str:
    rows = 2 if dist.get_rank() != 1 else 1
    p = _dtensor(mesh_of((2,)), [Shard(0)], rows)  # which says another shape
    with pytest.raises(TargetError) as caught:
        drop_in.clip_grad_norm_([p], 0.1)
    assert torch.equal(p.grad._local_tensor, torch.ones(rows, 3))
    return str(caught.value)


def test_the_drop_ins_compare_too(ranks):
    assert "disagree" in alike(ranks(2, _another_drop_in))


def _coupled() -> str:
    method = gradclip.Clipping(gradclip.PerElement(), threshold=gradclip.thresholds.EmaRatio())
    had = sharded(whole({"a": (8, 3)}), mesh_of((4,)), {"a": [Shard(0)]})
    with pytest.raises(TargetError, match="by others that are on other ranks") as caught:
        gradclip.Clipper(had, method)
    return str(caught.value)


def test_elements_that_depend_on_others(ranks):
    alike(ranks(4, _coupled))
