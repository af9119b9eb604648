"""The order of events, optimizer by optimizer, against what the loops really did."""

from __future__ import annotations

import torch
from torch import nn

import gradclip
from gradclip.diagnosis.readings.event_order import Order, call_site_of, calls_of, orders_of
from gradclip.runs import Event, Run, RunWriter, StepRow, TensorInfo
from gradclip.watch.api import record
from tests.diagnosis.runs import read
from tests.diagnosis.support import recorded_training
from tests.diagnosis.wiring_loops import STEPS, two_under_one_scaler

clip = nn.utils.clip_grad_norm_


def pair():
    """Two models and their optimizers."""
    models = [nn.Linear(2, 1), nn.Linear(2, 1)]
    return models, [torch.optim.SGD(model.parameters(), lr=0.01) for model in models]


def backward(model):
    model(torch.ones(1, 2)).sum().backward()


def kinds(path, number):
    return [" ".join(order.kinds) for order in orders_of(read(path), number)]


def written(path, rows, numbers=(0, 1), **meta):
    """A run file with these events: (optimizer, step, time, events) in the order in which the steps happened."""
    writer = RunWriter(path, meta)
    writer.add_tensors([TensorInfo("w", (2,), optimizer=number) for number in numbers])
    for number, step, time, events in rows:
        writer.add_step(StepRow(step=step, optimizer=number, time=time))
        writer.add_events(step, number, [Event(*event) if isinstance(event, tuple) else Event(event) for event in events])
    writer.close()
    return path


def test_a_critic_that_steps_more_often(tmp_path):
    (a, b), (first, second) = pair()
    with record(None, [first, second], out=tmp_path) as run:
        for _ in range(3):
            for _ in range(2):
                first.zero_grad()
                backward(a)
                clip(a.parameters(), 1.0)
                first.step()
            second.zero_grad()
            backward(b)
            second.step()
    turn = "zero_grad forward backward clip step"
    other = "zero_grad forward backward"
    assert kinds(run.path, 0) == [turn, turn, *[f"{other} {turn}", turn] * 2]
    assert kinds(run.path, 1) == [f"{other} {other} {other} step"] * 3


def test_one_after_the_other(tmp_path):
    (a, _), (first, second) = pair()
    second.param_groups[0]["params"] = list(a.parameters())  # the same weights, trained on
    with record(None, [first, second], out=tmp_path) as run:
        for optimizer in (first, second):
            for _ in range(3):
                backward(a)
                if optimizer is second:
                    clip(a.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
    assert kinds(run.path, 0) == ["forward backward step", *["zero_grad forward backward step"] * 2]
    before = "zero_grad forward backward " * 2  # of the first, before the second stepped for the first time
    turn = "zero_grad forward backward clip step"
    assert kinds(run.path, 1) == [f"forward backward {before}{turn}", turn, turn]


def test_both_wait_for_one_step_after_the_other(tmp_path):
    models, optimizers = pair()
    with record(None, optimizers, out=tmp_path) as run:
        for _ in range(2):
            for model, optimizer in zip(models, optimizers, strict=True):
                optimizer.zero_grad()
                backward(model)
                clip(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
    one, other = "zero_grad forward backward clip", "zero_grad forward backward"
    assert kinds(run.path, 0) == [f"{one} {other} step"] * 2
    assert kinds(run.path, 1) == [f"{other} {one} step"] * 2


def test_clipping_inside_of_the_step_belongs_to_it(tmp_path):
    models, optimizers = pair()
    handles = [gradclip.attach(optimizer, "global_norm:1.0") for optimizer in optimizers]
    with record(None, optimizers, out=tmp_path) as run:
        for _ in range(3):
            for model, optimizer in zip(models, optimizers, strict=True):
                optimizer.zero_grad()
                backward(model)
                optimizer.step()
    for handle in handles:
        handle.detach()
    turn, other = "zero_grad forward backward step clip", "zero_grad forward backward"
    assert kinds(run.path, 0) == [turn, *[f"{other} {turn}"] * 2]
    assert kinds(run.path, 1) == [f"{other} {turn}"] * 3


def test_clipping_right_after_the_step_belongs_to_the_next(tmp_path):
    models, optimizers = pair()
    with record(None, optimizers, out=tmp_path) as run:
        for _ in range(2):
            for model, optimizer in zip(models, optimizers, strict=True):
                optimizer.zero_grad()
                backward(model)
                optimizer.step()
                clip(model.parameters(), 1.0)
    turn, other = "zero_grad forward backward step", "zero_grad forward backward"
    assert kinds(run.path, 0) == [turn, f"clip {other} {turn}"]
    assert kinds(run.path, 1) == [f"{other} {turn}", f"clip {other} {turn}"]


def test_clipping_of_both_at_once(tmp_path):
    models, optimizers = pair()
    with record(None, optimizers, out=tmp_path) as run:
        for _ in range(2):
            for model in models:
                backward(model)
            clip([p for model in models for p in model.parameters()], 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    for number in (0, 1):
        assert [len(order.clips) for order in orders_of(read(run.path), number)] == [1, 1]


def test_a_loop_without_an_optimizer_has_no_step_event(tmp_path):
    model = nn.Linear(2, 1)
    with record(model, out=tmp_path) as run:
        for _ in range(3):
            backward(model)
            clip(model.parameters(), 1.0)
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad  # noqa: PLW2901
                    p.grad = None
    assert [order.kinds for order in orders_of(read(run.path))] == [("forward", "backward", "clip")] * 3


def test_a_closure_runs_inside_of_the_step(tmp_path):
    models, optimizers = pair()

    def closure():
        optimizers[0].zero_grad()
        backward(models[0])
        return torch.zeros(())

    with record(None, optimizers[:1], out=tmp_path) as run:
        for _ in range(2):
            optimizers[0].step(closure)
    assert kinds(run.path, 0) == ["step zero_grad forward backward"] * 2


def test_steps_that_a_scaler_drops(tmp_path):
    def turn(number, step, at, *detail):
        return number, step, at, ["backward", ("unscale", number), Event("step", number, detail=" ".join(detail))]

    dropped = "dropped by the GradScaler"
    rows = [turn(0, 0, 0.0), turn(1, 0, 1.0, dropped), turn(0, 1, 2.0, dropped), turn(1, 1, 3.0)]
    run = read(written(tmp_path / "a.gradclip", rows))
    assert [order.step for order in orders_of(run, 0)] == [0, 1]
    assert [order.step for order in orders_of(run, 1)] == [0, 1]
    assert orders_of(run, 1)[1].kinds == ("backward", "backward", "unscale", "step")


def test_the_events_of_two_optimizers_keep_their_owner(tmp_path):
    """Also of a step that a GradScaler drops."""
    with Run.open(recorded_training(tmp_path, two_under_one_scaler())) as run:
        events = run.events()
    assert [(step, number) for step, number, _ in events] == [(step, number) for step in range(STEPS) for number in (0, 1)]
    for _, number, happened in events:
        owners = {kind: {event.optimizer for event in happened if event.kind == kind} for kind in ("step", "unscale", "clip")}
        assert owners["step"] == {number}
        assert owners["unscale"] == owners["clip"] == ({0, 1} if number == 0 else set())  # all before the first one's step
    assert {event.detail for *_, happened in events[:2] for event in happened} == {"", "dropped by the GradScaler"}


def test_a_step_that_has_no_row_yet(tmp_path):
    path = written(tmp_path / "a.gradclip", [(0, 0, 0.0, ["backward", ("step", 0)]), (1, 0, None, ["backward", ("step", 1)])])
    run = read(path)
    assert [order.kinds for order in orders_of(run, 1)] == [("backward", "backward", "step")]
    assert orders_of(run, 7) == []


def test_what_belongs_to_an_optimizer():
    owners = [[0], [1], [1, 2], [1], [0, 1]]
    events = tuple(Event("clip", owner, sequence=call) for call, numbers in enumerate(owners) for owner in numbers)
    owned = {number: [event.sequence for event in Order(0, events, number).clips] for number in range(6)}
    assert owned == {0: [0, 4], 1: [1, 2, 3, 4], 2: [2], 3: [], 4: [], 5: []}
    assert [[event.optimizer for event in call] for call in calls_of(events)] == owners


def test_what_names_no_tensor_belongs_to_whom_steps_next():
    events = (Event("clip", reached=0), Event("step", 0), Event("clip", reached=3), Event("step", 1))
    assert [event.reached for event in Order(0, events, 1, 2).clips] == [3]


def test_an_order_that_was_cut_short():
    assert Order(0, (Event("backward"),)).complete
    assert not Order(0, (Event("backward"), Event("cut"))).complete


def test_the_first_place_is_told(tmp_path):
    clips = [
        Event("clip", 1, place="b.py:2"),
        Event("clip", 0),
        Event("clip", 0, place="a.py:3"),
        Event("clip", 0, place="c.py:4"),
    ]
    run = read(written(tmp_path / "a.gradclip", [(0, step, step, [clip]) for step, clip in enumerate(clips)]))
    assert [call_site_of(run, optimizer, "clip") for optimizer in run.optimizers] == ["a.py:3", ""]
    assert call_site_of(run, run.optimizers[0], "step") == ""


def test_steps_of_one_time(tmp_path):
    """Steps of the same time keep the order of the file."""
    rows = [(n, step, 0.0, ["backward", ("step", n)]) for step in range(2) for n in (0, 1)]
    path = written(tmp_path / "a.gradclip", rows)
    with Run.open(path) as run:
        assert run.optimizers == (0, 1)
    assert [len(order.events) for order in orders_of(read(path), 1)] == [4, 4]
