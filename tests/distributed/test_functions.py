"""Each way to clip takes sharded gradients: functions, ``attach``, and PyTorch's own contract."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

import gradclip
import gradclip.torch as drop_in
from gradclip import TargetError
from gradclip.torch.fused import FusedScale
from gradclip.torch.pipeline import GradientList, run
from gradclip.torch.plan import plan_for
from gradclip.torch.step import StepInputs
from tests.distributed.support import (
    PLACED,
    Named,
    alike,
    assert_same,
    assert_same_gradients,
    full,
    give,
    gradients,
    mesh_of,
    sharded,
    whole,
)


def _pair(shape: tuple[int, ...] = (2, 2), seed: int = 0) -> tuple[Named, Named]:
    wanted = whole()
    had = sharded(wanted, mesh_of(shape), PLACED[len(shape)])
    grads = gradients(wanted, seed)
    give(wanted, grads)
    give(had, grads)
    return wanted, had


def _clip_once(recipe: str) -> float:
    wanted, had = _pair()
    want, have = gradclip.clip_(wanted, recipe), gradclip.clip_(had, recipe)
    assert_same(want, have, wanted, had)
    return float(have.norm)


@pytest.mark.parametrize("recipe", ["global_norm:1.0", "agc:0.01", "value:0.3"])
def test_clip_in_place(ranks, recipe):
    alike(ranks(4, _clip_once, recipe))


def _clip_copies(recipe: str) -> None:
    wanted, had = _pair()
    grads = {name: p.grad for name, p in had.items()}
    before = {name: full(grad).clone() for name, grad in grads.items()}
    want = gradclip.clip({n: p.grad for n, p in wanted.items()}, recipe, params=dict(wanted))
    have = gradclip.clip(grads, recipe, params=dict(had))
    for name, tensor in want.items():
        torch.testing.assert_close(full(have[name]), tensor)
        assert torch.equal(full(grads[name]), before[name])


@pytest.mark.parametrize("recipe", ["global_norm:1.0", "agc:0.01"])
def test_copies(ranks, recipe):
    ranks(4, _clip_copies, recipe)


def _norms_of_tensors() -> dict[str, float]:
    wanted, had = _pair()
    want = gradclip.tensor_norms(wanted)
    have = gradclip.tensor_norms(had)
    assert have == pytest.approx(want, rel=1e-6)
    return have


def test_tensor_norms(ranks):
    alike(ranks(4, _norms_of_tensors))


def _attached(fused: bool) -> list[bool]:
    wanted, had = _pair()
    if fused:  # which takes DTensors or plain tensors, not both
        had = {name: p for name, p in had.items() if isinstance(p, DTensor)}
        wanted = {name: wanted[name] for name in had}
    taken: list[bool] = []
    ask = FusedScale.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FusedScale, "__call__", lambda *args: taken.append(ask(*args)) or taken[-1])
        results = []
        for named in (wanted, had):
            optimizer = torch.optim.AdamW(named.values(), lr=0.1, fused=fused, foreach=False)
            handle = gradclip.attach(optimizer, "global_norm:0.5", parameters=named)
            for seed in range(3):
                give(named, gradients(named, seed))
                optimizer.step()
            results.append(handle.result)
    assert_same(*results, wanted, had)
    for name, p in wanted.items():
        torch.testing.assert_close(full(had[name].detach()), p.detach())
    return taken


@pytest.mark.parametrize("fused", [False, True])
def test_attach(ranks, fused):
    assert alike(ranks(4, _attached, fused)) == [fused] * 6


def _refused_in_backward() -> str:
    with pytest.raises(TargetError, match=r"is a DTensor.*use gradclip\.attach") as caught:
        gradclip.InBackward(_pair()[1], "tensor_norm:1.0")
    return str(caught.value)


def test_in_backward_refuses(ranks):
    alike(ranks(4, _refused_in_backward))


def _torch_norm(p: float) -> float:
    wanted, had = _pair()
    wanted.pop("empty"), had.pop("empty")  # torch has no largest element of it
    want = torch.nn.utils.clip_grad_norm_(wanted.values(), 0.7, p)
    have = drop_in.clip_grad_norm_(had.values(), 0.7, p)
    assert type(have) is torch.Tensor
    torch.testing.assert_close(have, want, rtol=1e-6, atol=0)
    assert_same_gradients(wanted, had)
    return float(have)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, float("inf")])
def test_torch_clip_grad_norm(ranks, p):
    alike(ranks(4, _torch_norm, p))


def _no_gradient_on_one_rank() -> float:
    """Sharded over all, so that what the last rank lacks counts as zeros."""
    mesh = mesh_of((4,))
    placed = {"a": [Shard(0)], "b": [Shard(1)]}
    wanted = whole({"a": (8, 2), "b": (3, 4)})
    had = sharded(wanted, mesh, placed)
    grads = gradients(wanted, 0)
    grads["a"][6:], grads["b"][:, 3] = 0, 0
    give(wanted, grads)
    give(had, grads)
    if dist.get_rank() == 3:
        for p in had.values():
            p.grad = None
    want = gradclip.clip_(wanted, "tensor_norm:0.5,norm=rms")
    have = gradclip.clip_(had, "tensor_norm:0.5,norm=rms")
    torch.testing.assert_close(have.tensor_norms, want.tensor_norms, rtol=1e-6, atol=0)
    for p in had.values():
        assert (p.grad is None) == (dist.get_rank() == 3)
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    assert_same_gradients(wanted, had)
    give(had, grads)
    if dist.get_rank() == 3:
        for p in had.values():
            p.grad = None
    give(wanted, grads)
    total = drop_in.clip_grad_norm_(had.values(), 0.5)
    torch.testing.assert_close(total, drop_in.clip_grad_norm_(wanted.values(), 0.5), rtol=1e-6, atol=0)
    return float(have.norm)


def test_a_rank_without_any_gradient_joins(ranks):
    alike(ranks(4, _no_gradient_on_one_rank))


def _without_gradients(recipe: str) -> float:
    """Two parameters have none on any rank: they are not there, for means and for weights too."""
    wanted, had = _pair()
    for named in (wanted, had):
        named["embed.weight"].grad = named["layer.bias"].grad = None
    want, have = gradclip.clip_(wanted, recipe), gradclip.clip_(had, recipe)
    assert_same(want, have, wanted, had)
    assert gradclip.tensor_norms(wanted).keys() == gradclip.tensor_norms(had).keys()
    return float(have.norm)


@pytest.mark.parametrize("recipe", ["global_norm:0.3,norm=rms", "agc:0.01", "value:0.3", "tensor_norm:0.5"])
def test_a_parameter_without_a_gradient_on_any_rank(ranks, recipe):
    alike(ranks(4, _without_gradients, recipe))


def _other_drop_ins() -> tuple[float, ...]:
    wanted, had = _pair()
    total = drop_in.get_total_norm([p.grad for p in had.values()])
    want = torch.nn.utils.get_total_norm([p.grad for p in wanted.values()])
    torch.testing.assert_close(total, want, rtol=1e-6, atol=0)
    drop_in.clip_grads_with_norm_(had.values(), 1.5, total)
    torch.nn.utils.clip_grads_with_norm_(wanted.values(), 1.5, want)
    assert_same_gradients(wanted, had)
    copies = drop_in.clip_grad_norm(had.values(), 0.5)
    for copy, expected in zip(copies, drop_in.clip_grad_norm(wanted.values(), 0.5), strict=True):
        torch.testing.assert_close(full(copy), expected)
    assert_same_gradients(wanted, had)
    torch.nn.utils.clip_grad_value_(wanted.values(), 0.1)
    drop_in.clip_grad_value_(had.values(), 0.1)
    assert_same_gradients(wanted, had)
    had["gain"].grad.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="non-finite"):
        drop_in.clip_grad_norm_(had.values(), 1.0, error_if_nonfinite=True)
    return (float(total),)


def test_the_other_drop_ins(ranks):
    alike(ranks(4, _other_drop_ins))


def _partial() -> float:
    """Each rank has a summand: half of the gradient, or all of it on one rank."""
    mesh = mesh_of((2, 2))
    wanted = whole({"a": (4, 3), "b": (4,), "c": (2, 2)})
    had = sharded(wanted, mesh, {"a": [Shard(0), Replicate()], "b": [Replicate(), Replicate()], "c": [Replicate(), Shard(1)]})
    grads = gradients(wanted, 0)
    give(wanted, grads)
    give(had, grads)
    shares = torch.tensor([0.75, 0.25])[mesh.get_local_rank("tp")]
    local = had["a"].grad._local_tensor * shares
    had["a"].grad = DTensor.from_local(local, mesh, [Shard(0), Partial()], run_check=False)
    mine = grads["b"].clone() if dist.get_rank() == 2 else torch.zeros(4)
    had["b"].grad = DTensor.from_local(mine, mesh, [Partial(), Partial()], run_check=False)
    value = {name: p.grad.clone() for name, p in had.items()}
    want, have = gradclip.clip_(wanted, "global_norm:0.5"), gradclip.clip_(had, "global_norm:0.5")
    assert_same(want, have, wanted, had)
    for name, p in had.items():
        p.grad = value[name].clone()
    give(wanted, grads)
    torch.testing.assert_close(
        drop_in.clip_grad_norm_(had.values(), 0.5), torch.nn.utils.clip_grad_norm_(wanted.values(), 0.5), rtol=1e-6, atol=0
    )
    assert_same_gradients(wanted, had)
    for name, p in had.items():
        p.grad = value[name]
    give(wanted, grads)
    drop_in.clip_grad_value_(had.values(), 0.2)
    drop_in.clip_grad_value_(wanted.values(), 0.2)
    assert_same_gradients(wanted, had)
    return float(have.norm)


def test_summands_are_added_up_first(ranks):
    alike(ranks(4, _partial))


def _two_meshes() -> float:
    """Dense parameters on one mesh, experts on another, and a plain one."""
    dense = mesh_of((4,))
    expert = init_device_mesh("cpu", (2, 2), mesh_dim_names=("expert_dp", "expert"))["expert"]
    wanted = whole({"dense": (8, 3), "experts": (4, 3, 2), "plain": (5,)})
    had = sharded(wanted, dense, {"dense": [Shard(0)]})
    had |= sharded({"experts": wanted["experts"]}, expert, {"experts": [Shard(0)]})
    had = {name: had[name] for name in wanted}
    for recipe in ("global_norm:0.5", "agc:0.01", "tensor_norm:0.3,norm=inf"):
        give(wanted, gradients(wanted, 1))
        give(had, gradients(wanted, 1))
        want, have = gradclip.clip_(wanted, recipe), gradclip.clip_(had, recipe)
        assert_same(want, have, wanted, had)
    give(wanted, gradients(wanted, 2))
    give(had, gradients(wanted, 2))
    total = drop_in.clip_grad_norm_(had.values(), 0.5)
    torch.testing.assert_close(total, torch.nn.utils.clip_grad_norm_(wanted.values(), 0.5), rtol=1e-6, atol=0)
    assert_same_gradients(wanted, had)
    return float(total)


def test_experts_on_another_mesh_beside_plain_tensors(ranks):
    alike(ranks(4, _two_meshes))


def _sparse() -> float:
    """A plain embedding with a sparse gradient beside a DTensor."""
    mesh = mesh_of((2,))
    torch.manual_seed(0)
    embedding = nn.Embedding(6, 2, sparse=True)
    embedding(torch.tensor([1, 3, 3])).pow(2).sum().backward()
    wanted = whole({"w": (4, 2)}) | {"e": nn.Parameter(embedding.weight.detach().clone())}
    had = sharded(wanted, mesh, {"w": [Shard(0)]})
    for recipe in ("global_norm:0.5", "agc:0.01", "value:0.2"):
        for named in (wanted, had):
            give({"w": named["w"]}, gradients({"w": wanted["w"]}, 0))
            named["e"].grad = embedding.weight.grad.clone()
        want, have = gradclip.clip_(wanted, recipe), gradclip.clip_(had, recipe)
        torch.testing.assert_close(have.tensor_norms, want.tensor_norms, rtol=1e-6, atol=0)
        torch.testing.assert_close(had["e"].grad.to_dense(), wanted["e"].grad.to_dense())
    return float(have.norm)


def test_a_sparse_gradient_beside_dtensors(ranks):
    alike(ranks(2, _sparse))


def _mixed_up() -> list[str]:
    whole_gradient = DTensor.from_local(torch.ones(3), mesh_of((2, 2)), [Replicate()] * 2)
    texts = []
    for parameter, grad in ((torch.ones(3), whole_gradient), (whole_gradient, torch.ones(3))):
        plan = plan_for(gradclip.global_norm(1.0), {"w": nn.Parameter(parameter), **_pair()[1]})
        grads = [grad, *[None] * (len(plan.target.names) - 1)]
        with pytest.raises(TargetError, match="'w'") as caught:
            run(plan, GradientList(grads), StepInputs())
        texts.append(str(caught.value))
    return texts


def test_a_gradient_of_another_kind_than_its_parameter_is_refused(ranks):
    alike(ranks(4, _mixed_up))
