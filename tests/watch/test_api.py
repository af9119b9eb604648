"""gradclip.record from code: what it sees, what it leaves alone, and how it ends."""

from __future__ import annotations

import math
import sys
import types

import pytest
import torch
from torch import nn

import gradclip.torch
from gradclip.runs import Run
from gradclip.torch import Clipper
from gradclip.watch.api import record
from tests.watch.support import net, steps_of, train


def patched():
    """Every function that watching may replace, wherever it is."""
    scaler = torch.amp.GradScaler
    places = [
        torch.autograd.backward, torch.optim.Optimizer.zero_grad, torch.optim.Optimizer.__dict__["_patch_step_function"],
        nn.Module.zero_grad, scaler.scale, scaler.unscale_, scaler.step, Clipper.clip_,
    ]  # fmt: skip
    modules = [m for m in list(sys.modules.values()) if type(m) is types.ModuleType]
    for name in ("clip_grad_norm_", "clip_grad_value_"):
        places += [vars(module)[name] for module in modules if name in vars(module)]
    hooks = sys.modules["torch.optim.optimizer"]
    return [*map(id, places), len(hooks._global_optimizer_pre_hooks), len(hooks._global_optimizer_post_hooks), sys.excepthook]


def test_everything_is_put_back(recording):
    before = patched()
    running = recording()
    assert patched() != before
    running.close()
    assert patched() == before


def test_closing_twice_is_fine_and_what_follows_is_not_recorded(recording):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    running = recording(model, optimizer)
    train(model, optimizer, 4)
    running.close()
    running.close("crashed")
    train(model, optimizer, 2)
    assert len(steps_of(running.path)) == 4
    with Run.open(running.path) as run:
        assert run.status == "finished"
        assert [t.name for t in run.tensors] == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_flushed_steps_are_in_the_file(recording):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    running = recording(model, optimizer)
    for step in range(1, 4):
        train(model, optimizer, 1)
        running.flush()
        assert len(steps_of(running.path)) == running.steps == step
    with Run.open(running.path) as run:
        assert run.status == "running"
        assert run.tensor_matrix("norm", 0).matrix.shape == (3, 4)


def test_the_norm_of_the_last_step(recording):
    model = torch.nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    running = recording(model, optimizer)
    assert math.isnan(running.norm)
    model(torch.tensor([[3.0, 4.0]])).sum().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    running.flush()
    assert running.norm == 5.0


def test_a_file_may_be_named_and_is_replaced(tmp_path, recording):
    path = tmp_path / "made" / "baseline.gradclip"
    for steps in (3, 2):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        running = recording(model, optimizer, out=path)
        train(model, optimizer, steps)
        running.close()
        assert running.path == path
        assert len(steps_of(path)) == steps
    assert list(path.parent.iterdir()) == [path]


def test_flushing_a_closed_recording_does_nothing(recording):
    running = recording()
    running.close()
    running.flush()
    assert len(steps_of(running.path)) == 0


def test_numbers_do_not_change(recording):
    def losses():
        torch.manual_seed(3)
        model = net()
        return train(model, torch.optim.Adam(model.parameters(), lr=0.01), 20, clip=0.5)

    plain = losses()
    recording()
    assert losses() == plain


def test_only_one_optimizer(recording):
    models = [net(), net()]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in models]
    running = recording(models[1], optimizers[1])
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, 3, clip=0.01)
    running.close()
    steps = steps_of(running.path)
    assert len(steps) == 3
    assert set(steps.optimizer) == {0}
    assert (steps.threshold == 0.01).all()


def test_optimizers_made_before_and_after(recording):
    first = net()
    one = torch.optim.SGD(first.parameters(), lr=0.1)
    running = recording()
    second = net()
    two = torch.optim.SGD(second.parameters(), lr=0.2)
    train(second, two, 2)
    train(first, one, 3)
    running.close()
    steps = steps_of(running.path)
    assert len(steps) == 5
    assert (steps.lr == 0.2).sum() == 2


def test_an_exception_is_noted(tmp_path):
    with pytest.raises(KeyError), record(out=tmp_path) as running:
        raise KeyError
    with Run.open(running.path) as run:
        assert run.status == "crashed"


def test_a_second_recording_is_refused_until_the_first_is_closed(recording, tmp_path):
    running = recording()
    with pytest.raises(RuntimeError, match=r"is being recorded already: close\(\) it first"):
        record(out=tmp_path)
    running.close()
    record(out=tmp_path).close()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((torch.optim.SGD([torch.ones(1)], lr=1),), TypeError, "takes a model first"),
        ((None, nn.Linear(1, 1)), TypeError, "optimizer must be a torch.optim optimizer"),
    ],
)
def test_mistakes(arguments, error, words, tmp_path):
    with pytest.raises(error, match=words):
        record(*arguments, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="at least 1, not 0"):
        record(out=tmp_path, every=0)


def test_a_folder_that_cannot_be_written_to_does_not_stop_training(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    model = net()
    with record(model, out=tmp_path / "file"):
        assert len(train(model, torch.optim.SGD(model.parameters(), lr=0.1))) == 3
    said = capsys.readouterr().err
    assert said.count("gradclip: recording stopped, training goes on") == 1


def test_gradclips_own_functions_are_seen(recording):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    running = recording(model, optimizer)
    for _ in range(2):
        model(torch.randn(4, 3)).sum().backward()
        gradclip.torch.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
    running.close()
    steps = steps_of(running.path)
    assert steps.threshold.tolist() == [0.5, 0.5]
    assert steps.clipped_norm == pytest.approx([0.5, 0.5], rel=1e-5)


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "with a scaler"])
def test_clipping_that_a_fused_optimizer_does_itself_is_seen(scaled, recording):
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, enabled=scaled)
    handle = gradclip.attach(optimizer, "global_norm:0.5", parameters=model)
    norms = []
    with recording(model, optimizer) as watched:
        for step in range(4):
            optimizer.zero_grad()
            loss = (1000 if step % 2 else 1e-3) * model(torch.ones(2, 3)).square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            norms.append(float(handle.result.norm))
        path = watched.path
    found = steps_of(path)
    assert found.norm == pytest.approx(norms, rel=1e-5)
    assert found.clipped_norm == pytest.approx([min(norm, 0.5) for norm in norms], rel=1e-5)
    assert found.clipped.tolist() == [norm > 0.5 for norm in norms]
    assert max(norms) > 0.5 > min(norms)
