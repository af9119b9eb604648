"""What a rule has learnt is the same on every rank, and comes back under another number of ranks bit for bit."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

import gradclip
from gradclip import StateError
from tests.distributed.support import PLACED, alike, full, give, gradients, mesh_of, sharded, whole

RULES = [
    "zclip:0.5,warmup=2",
    "quantile:0.5,per_tensor=True",
    "adagc:1.01,warmup=2",
    "autoclip:50",
    "stable_spam",
    "spam:0.5,warmup=1",
    "norm_growth:1.001",
]


def _read(clipper: gradclip.Clipper) -> dict[str, Any]:
    return {k: full(v).tolist() if isinstance(v, Tensor) else v for k, v in clipper.state_dict().items()}


def _clipper(recipe: str) -> tuple[gradclip.Clipper, dict[str, nn.Parameter]]:
    """Over DTensors, on one rank over plain parameters."""
    parameters = whole()
    count = dist.get_world_size()
    if count > 1:
        shape = (2, 2) if count == 4 else (count,)
        parameters = sharded(parameters, mesh_of(shape), PLACED[len(shape)])
    return gradclip.Clipper(parameters, recipe), parameters


def _learn_and_save(recipe: str, path: str) -> dict[str, Any]:
    clipper, parameters = _clipper(recipe)
    for seed in range(3):
        give(parameters, gradients(parameters, seed))
        clipper.clip_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"clipper": clipper}, checkpoint_id=path)
    return _read(clipper)


def _load_and_save(recipe: str, path: str, onward: str) -> tuple[dict[str, Any], int, float]:
    clipper, parameters = _clipper(recipe)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load({"clipper": clipper}, checkpoint_id=path)
        dcp.save({"clipper": clipper}, checkpoint_id=onward)
    found = _read(clipper)
    give(parameters, gradients(parameters, 3))
    return found, clipper.step, float(clipper.clip_().clipped_norm)


@pytest.mark.parametrize("recipe", RULES)
def test_two_four_one(ranks, recipe, tmp_path):
    paths = [str(tmp_path / name) for name in ("two", "four", "one")]
    saved = alike(ranks(2, _learn_and_save, recipe, paths[0]))
    four, step, norm = alike(ranks(4, _load_and_save, recipe, paths[0], paths[1]))
    ((one, _, alone),) = ranks(1, _load_and_save, recipe, paths[1], paths[2])
    back, _, again = alike(ranks(2, _load_and_save, recipe, paths[2], str(tmp_path / "again")))
    assert saved == four == one == back
    assert step == 3
    assert alone == pytest.approx(norm, rel=1e-9)
    assert again == pytest.approx(norm, rel=1e-9)


def _elements() -> tuple[list[str], bool]:
    clipper, parameters = _clipper("spam:0.5,warmup=1,exclude=gain")
    give(parameters, gradients(parameters, 0))
    clipper.clip_()
    state = clipper.state_dict()
    placed = all(
        isinstance(state[f"threshold.rms.{name}"], DTensor) == isinstance(p, DTensor)
        and state[f"threshold.rms.{name}"].shape == p.shape
        and getattr(state[f"threshold.rms.{name}"], "placements", 0) == getattr(p, "placements", 0)
        for name, p in parameters.items()
        if name != "gain"
    )
    return sorted(state), placed


def test_the_history_of_elements_is_sharded_as_they_are(ranks):
    keys, placed = alike(ranks(4, _elements))
    assert placed
    assert "threshold.rms.embed.weight" in keys
    assert "threshold.rms.gain" not in keys


def _another_layout(recipe: str) -> bool:
    """A state is taken up whole, and from another mesh, without a file."""
    clipper, parameters = _clipper(recipe)
    give(parameters, gradients(parameters, 0))
    clipper.clip_()
    state = clipper.state_dict()
    mesh = init_device_mesh("cpu", (4,), mesh_dim_names=("dp",))
    other = gradclip.Clipper(sharded(whole(), mesh, {name: [Shard(0)] for name in ("embed.weight", "conv.weight")}), recipe)
    other.load_state_dict(state)
    plain = gradclip.Clipper(whole(), recipe)
    plain.load_state_dict(state)
    once_more, _ = _clipper(recipe)
    once_more.load_state_dict(plain.state_dict())
    return _read(clipper) == _read(other) == _read(plain) == _read(once_more)


@pytest.mark.parametrize("recipe", ["spam:0.5,warmup=1", "adagc", "stable_spam"])
def test_another_layout(ranks, recipe):
    assert alike(ranks(4, _another_layout, recipe))


def _window() -> bool:
    """An array with an axis of its own in front of the elements."""
    method = gradclip.Clipping(gradclip.PerElement(), threshold=gradclip.thresholds.Quantile(0.5, window=3))
    clipper, parameters = _clipper(method)
    wanted = whole()
    one = gradclip.Clipper(wanted, method)
    for seed in range(4):
        give(parameters, gradients(parameters, seed))
        give(wanted, gradients(wanted, seed))
        clipper.clip_(), one.clip_()
    assert _read(clipper) == _read(one)
    again, _ = _clipper(method)
    again.load_state_dict(clipper.state_dict())
    return _read(again) == _read(one)


def test_windows_of_elements(ranks):
    assert alike(ranks(4, _window))


def _parts() -> tuple[list[str], str]:
    """Parts that are cut by hand have a name of their own on each rank: nobody takes them for copies."""
    rank = dist.get_rank()
    named = {"w": nn.Parameter(torch.ones(3 + rank))}
    clipper = gradclip.Clipper(named, "spam", group=dist.group.WORLD)
    named["w"].grad = torch.ones(3 + rank)
    clipper.clip_()
    state = clipper.state_dict()
    again = gradclip.Clipper(named, "spam", group=dist.group.WORLD)
    again.load_state_dict(state)
    assert _read(again) == _read(clipper)
    state[f"threshold.rms.w.part{1 - rank}"] = state.pop(f"threshold.rms.w.part{rank}")
    with pytest.raises(StateError) as caught:
        again.load_state_dict(state)
    return sorted(state), str(caught.value)[:9]


def test_parts_cut_by_hand(ranks):
    ranks(2, _parts)


def _stages() -> list[str]:
    rank = dist.get_rank()
    own = {0: ("a", "tied"), 1: ("tied", "b")}[rank]
    named = {name: nn.Parameter(torch.ones(2)) for name in own}
    clipper = gradclip.Clipper(named, "spam", group=dist.group.WORLD)
    give(named, {name: torch.ones(2) for name in named})
    clipper.clip_()
    again = gradclip.Clipper(named, "spam", group=dist.group.WORLD)
    again.load_state_dict(clipper.state_dict())
    assert _read(again) == _read(clipper)
    return [key for key in clipper.state_dict() if key.startswith("threshold.rms")]


def test_stages(ranks):
    assert ranks(2, _stages) == [["threshold.rms.a", "threshold.rms.tied"], ["threshold.rms.tied", "threshold.rms.b"]]


def _saved_by(path: str) -> dict[str, Any]:
    """The optimizer's handle is taken as it is, too."""
    parameters = sharded(whole(), mesh_of((2,)), PLACED[1])
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1, foreach=False)
    handle = gradclip.attach(optimizer, "zclip:0.5,warmup=2", parameters=parameters)
    give(parameters, gradients(parameters, 0))
    optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"clip": handle}, checkpoint_id=path)
        handle.detach()
        other = gradclip.attach(optimizer, "zclip:0.5,warmup=2", parameters=parameters)
        dcp.load({"clip": other}, checkpoint_id=path)
    assert _read(other.clipper) == _read(handle.clipper)
    return _read(other.clipper)


def test_an_attachment(ranks, tmp_path):
    assert alike(ranks(2, _saved_by, str(tmp_path)))["step"] == 1
