"""Without asking the host: a fused optimizer drops a step with a NaN itself, and is counted one step late.

An accelerator does this by default; here the CPU is taken for one.
"""

from __future__ import annotations

import math

import pytest
import torch

import gradclip
from gradclip.backends import cpu
from gradclip.watch.api import record
from tests.torch.test_fused import OPTIMIZERS, gradients, model
from tests.watch.support import steps_of

RECIPES = ["zclip", "auto", "normalize:0.7"]
"""Those that one factor carries out, and that no shortcut of the CPU decides."""


@pytest.fixture(autouse=True)
def accelerator(monkeypatch):
    monkeypatch.setattr(cpu.Cpu, "on_host", False)


def arms(build, recipe):
    """One that rides and one that is clipped before its step."""
    riding, plain = model(), model()
    optimizers = build(riding.parameters()), build(plain.parameters())
    return riding, plain, *optimizers, gradclip.attach(optimizers[0], recipe), gradclip.Clipper(optimizers[1], recipe)


def spoil(net, bad=math.nan):
    net[0].bias.grad[1] = bad


@pytest.mark.filterwarnings("ignore:gradclip skipped")
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("build", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_bad_step_leaves_everything_as_it_was(recipe, build, bad):
    riding, plain, fused, stepped, handle, clipper = arms(build, recipe)
    for step in range(10):
        for net in (riding, plain):
            gradients(net, step)
            if step in (3, 4, 8):
                spoil(net, bad)
        before = [p.clone() for p in riding.parameters()]
        fused.step()
        clipper.clip_()
        stepped.step()
        assert isinstance(handle.result.skipped, torch.Tensor) or step == 0  # momentum has to begin
        assert bool(handle.result.skipped) == (step in (3, 4, 8))
        if step in (3, 4, 8):
            assert all(torch.equal(a, b) for a, b in zip(before, riding.parameters(), strict=True))
            assert float(handle.result.clipped_norm) == 0
        for a, b in zip(riding.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=5e-6, atol=5e-7)
    assert (handle.clipper.skipped, handle.clipper.skipped_in_a_row) == (clipper.skipped, clipper.skipped_in_a_row) == (3, 0)
    mine, other = handle.state_dict(), clipper.state_dict()
    for key, value in other.items():
        torch.testing.assert_close(mine[key], value) if isinstance(value, torch.Tensor) else None
    assert not hasattr(fused, "found_inf")
    assert not hasattr(fused, "grad_scale")


def test_the_host_is_told_at_the_next_step():
    net, _, optimizer, _, handle, _ = arms(OPTIMIZERS["adamw"], "zclip")
    gradients(net, 0)
    spoil(net)
    optimizer.step()  # nothing is said yet
    gradients(net, 1)
    with pytest.warns(RuntimeWarning, match=r"non-finite gradient in 'group0\.1'"):
        optimizer.step()
    assert (handle.clipper.skipped, handle.clipper.skipped_in_a_row) == (1, 0)


def test_a_saved_state_counts_the_last_step():
    net, _, optimizer, _, handle, _ = arms(OPTIMIZERS["adamw"], "zclip")
    gradients(net, 0)
    spoil(net)
    optimizer.step()
    with pytest.warns(RuntimeWarning, match="skipped a step"):
        saved = handle.state_dict()
    assert (saved["step"], saved["skipped"], saved["skipped_in_a_row"]) == (1, 1, 1)


@pytest.mark.filterwarnings("ignore:gradclip skipped")
@pytest.mark.parametrize("looks", [True, False], ids=["looked at", "not looked at"])
def test_patience_ends_one_step_late(looks):
    net, _, optimizer, _, handle, _ = arms(OPTIMIZERS["adamw"], gradclip.zclip(nonfinite=gradclip.Skip(patience=3)))
    for step in range(3):
        gradients(net, step)
        spoil(net)
        optimizer.step()
        if looks:
            assert handle.clipper.skipped == step + 1
    gradients(net, 3)
    want = [p.grad.clone() for p in net.parameters()]
    with pytest.raises(gradclip.NonFiniteGradientError, match="3 steps in a row"):
        optimizer.step()
    assert all(torch.equal(p.grad, w) for p, w in zip(net.parameters(), want, strict=True))
    optimizer.step()  # the gradient is finite again
    assert handle.clipper.skipped_in_a_row == 0


@pytest.mark.filterwarnings("ignore:gradclip skipped")
def test_momentum_that_has_not_begun_is_not_left_unset():
    net, _, optimizer, _, handle, _ = arms(OPTIMIZERS["sgd, momentum"], "zclip")
    gradients(net, 0)
    spoil(net)
    optimizer.step()
    assert handle.result.skipped is True  # the host was asked
    gradients(net, 0)
    optimizer.step()
    for p in net.parameters():
        torch.testing.assert_close(optimizer.state[p]["momentum_buffer"], p.grad)


@pytest.mark.filterwarnings("ignore:gradclip skipped")
def test_a_recording_tells_the_skipped_step(tmp_path):
    net, _, optimizer, _, _, _ = arms(OPTIMIZERS["adamw"], "zclip")
    with record(net, optimizer, out=tmp_path) as recording:
        for step in range(4):
            gradients(net, step)
            if step == 2:
                spoil(net)
            optimizer.step()
        path = recording.path
    found = steps_of(path)
    assert found.skipped.tolist() == [False, False, True, False]
    assert found.clipped_norm[2] == 0
