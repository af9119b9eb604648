"""Loops that are hard to follow, each against its own count."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from gradclip.runs import Run
from gradclip.watch.observe.manual_loop import leaves_of
from tests.watch.support import data, net, steps_of, train


def test_updates_are_measured_at_one_step_in_ten(recording):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    running = recording(model, optimizer)
    weights, moved = [], []
    for _ in range(12):
        before = [p.detach().clone() for p in model.parameters()]
        train(model, optimizer, 1)
        weights.append([float(b.double().norm()) for b in before])
        moved.append([float((p.detach() - b).double().norm()) for p, b in zip(model.parameters(), before, strict=True)])
    running.close()
    with Run.open(running.path) as run:
        for kind, wanted in (("weight_norm", weights), ("update_norm", moved)):
            rows = run.tensor_matrix(kind)
            assert rows.steps.tolist() == [0, 10]
            np.testing.assert_allclose(rows.matrix, [wanted[0], wanted[10]], rtol=1e-5)


def test_updates_by_hand_are_measured_too(recording):
    w = torch.ones(3, requires_grad=True)
    running = recording()
    for _ in range(3):
        (w * w).sum().backward()
        w.data -= 0.1 * w.grad
        w.grad = None
    running.close()
    with Run.open(running.path) as run:
        (row,) = run.tensor_matrix("update_norm").matrix
        assert row == pytest.approx([0.2 * 3**0.5])
        assert run.steps().norm == pytest.approx(2 * 3**0.5 * 0.8 ** np.arange(3))


@pytest.mark.parametrize("micro", [1, 3])
def test_accumulation_by_hand_with_zeros_that_leave_no_mark(micro, recording):
    w = torch.ones(3, requires_grad=True)
    running = recording()
    for _ in range(5):
        for _ in range(micro):
            w.sum().backward()
        w.grad.data.zero_()
    running.close()
    assert steps_of(running.path).norm == pytest.approx([micro * 3**0.5] * 5)


def test_clipping_of_each_micro_batch(recording):
    w = torch.ones(4, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    running = recording(None, optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        for _ in range(2):
            (3 * w).sum().backward()
            nn.utils.clip_grad_norm_([w], 1.0)
        optimizer.step()
    running.close()
    steps = steps_of(running.path)
    assert steps.norm == pytest.approx([7.0] * 3)  # 1 from the first, clipped, and 6 from the second
    assert steps.clipped_norm == pytest.approx([1.0] * 3, rel=1e-5)
    with Run.open(running.path) as run:
        kinds = [event.kind for event in run.events()[0][-1]]
    assert kinds == ["zero_grad", *["forward", "backward", "clip"] * 2, "step"]


def test_the_loss_before_scaling(recording):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    running = recording(model, optimizer)
    loss = model(data()[0]).square().sum()
    scaler.scale(loss).backward()
    before = torch.stack([p.grad.double().norm() for p in model.parameters()]).norm() / 512
    scaler.step(optimizer)
    running.close()
    steps = steps_of(running.path)
    assert steps.loss == pytest.approx([loss.item()])
    assert steps.norm == pytest.approx([before.item()])
    assert steps.amp_scale == pytest.approx([512.0])


def test_many_backward_calls_without_a_step_take_no_room(recording):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    running = recording(model, optimizer)
    for _ in range(700):
        model(torch.ones(1, 3)).sum().backward()
    trail = running._session._log
    assert len(trail._losses) <= 64
    assert len(trail._events) <= 513
    total = 700 * model(torch.ones(1, 3)).item()
    optimizer.step()
    running.close()
    assert steps_of(running.path).loss == pytest.approx([total], rel=1e-4)


def test_watching_keeps_nothing_alive(recording):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    running = recording()
    train(model, optimizer, 3, clip=1.0)
    gone = [weakref.ref(model), weakref.ref(optimizer), *map(weakref.ref, model.parameters())]
    del model, optimizer
    gc.collect()
    assert [ref() for ref in gone] == [None] * len(gone)
    running.close()
    with Run.open(running.path) as run:
        assert run.tensors[0].name == "0.weight"


def test_parameters_that_are_exchanged(recording):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    running = recording(None, optimizer)
    for size in (2, 3, 4):
        p = optimizer.param_groups[0]["params"][0] = nn.Parameter(torch.ones(size))
        p.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        del p
    running.close()
    steps = steps_of(running.path)
    assert steps.norm == pytest.approx(np.sqrt([2, 3, 4]))


def test_names_are_found_without_a_model(recording):
    layers = [nn.Linear(2, 2), nn.Linear(2, 1)]
    optimizer = torch.optim.SGD([p for layer in layers for p in layer.parameters()], lr=0.1)
    running = recording()
    layers[1](layers[0](torch.ones(1, 2))).sum().backward()
    optimizer.step()
    running.close()
    with Run.open(running.path) as run:
        assert [t.name for t in run.tensors] == ["weight", "bias", "weight", "bias"]


def test_a_module_that_is_not_finished_does_not_disturb_the_search_for_names(recording):
    class Half(nn.Module):
        def __init__(self):
            pass

        def named_parameters(self, *args, **kwargs):
            raise AssertionError("code of the script's own was called")

    half = Half()
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    running = recording()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    running.close()
    assert half is not None
    with Run.open(running.path) as run:
        assert [t.name for t in run.tensors] == ["weight", "bias"]


def test_gradients_of_every_kind(recording):
    ps = [nn.Parameter(torch.ones(2, 3)) for _ in range(5)]
    ps[0].grad = torch.full((2, 3), 2.0, dtype=torch.float32).t().contiguous().t()
    ps[1].grad = torch.ones(1, 1).expand(2, 3)
    ps[2] = nn.Parameter(torch.ones(2, 3, dtype=torch.complex64))
    ps[2].grad = torch.full((2, 3), 3 + 4j)
    ps[3] = nn.Parameter(torch.ones(2, 3, dtype=torch.bfloat16))
    ps[3].grad = torch.full((2, 3), 1e30, dtype=torch.bfloat16)
    optimizer = torch.optim.SGD(ps, lr=0.1)
    running = recording(None, optimizer)
    optimizer.step()
    running.close()
    with Run.open(running.path) as run:
        rows = run.tensor_matrix("norm")
        assert rows.missing[0].tolist() == [False, False, False, False, True]
        wanted = [2 * 6**0.5, 6**0.5, 5 * 6**0.5, float(torch.tensor(1e30, dtype=torch.bfloat16)) * 6**0.5]
        assert rows.matrix[0, :4] == pytest.approx(wanted, rel=1e-5)


def test_leaves_of_a_shared_graph():
    a, b, frozen = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True), torch.ones(1)
    found = leaves_of((a * b + a * frozen).sum())
    assert {id(t) for t in found} == {id(a), id(b)}
    assert leaves_of(torch.ones(1)) == []
