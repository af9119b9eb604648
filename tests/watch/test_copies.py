"""Tensors that are copies of what an optimizer steps: master weights, a net that is shared, a copy that is adapted."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gradclip.clipping import Clipping
from gradclip.runs import Run
from gradclip.runs.writer import RunWriter
from gradclip.watch.observe.patches import Patches
from gradclip.watch.observe.replace_clipping import ReplaceClipping
from gradclip.watch.observe.session import Session
from gradclip.watch.record.recorder import Recorder
from tests.watch.support import data, net

SCALE = 64.0
LIMIT = 0.05


def norm_of(tensors):
    return float(torch.stack([t.double().norm() for t in tensors]).norm())


class Masters:
    """A bfloat16 model, float32 weights that an optimizer steps, and what its step should have been."""

    def __init__(self, flat=False):
        torch.manual_seed(0)
        self.model = net().to(torch.bfloat16)
        self.flat = flat
        self.master = [p.detach().clone().float() for p in self.model.parameters()]
        if flat:
            self.master = [torch.cat([m.reshape(-1) for m in self.master])]
        for m in self.master:
            m.requires_grad_()
        self.optimizer = torch.optim.SGD(self.master, lr=0.1)

    def backward(self):
        x, y = data()
        self.model.zero_grad()
        loss = (self.model(x.bfloat16()).float() - y).square().mean()
        (loss * SCALE).backward()

    def copy_gradients(self, scale=SCALE):
        grads = [p.grad.float() / scale for p in self.model.parameters()]
        grads = [torch.cat([grad.reshape(-1) for grad in grads])] if self.flat else grads
        for m, grad in zip(self.master, grads, strict=True):
            m.grad = grad

    def step(self):
        self.optimizer.step()
        at = 0
        for place, p in enumerate(self.model.parameters()):
            whole = self.master[0] if self.flat else self.master[place]
            p.data.copy_(whole.data[at : at + p.numel()].view_as(p) if self.flat else whole.data)
            at += p.numel()


def steps_and_clips(running):
    running.close()
    with Run.open(running.path) as run:
        assert len(run.optimizers) == 1
        return run.steps(), [e for *_, events in run.events() for e in events if e.kind == "clip"]


@pytest.mark.parametrize("flat", [False, True])
def test_master_weights_that_are_clipped(flat, recording):
    running = recording()
    s, norms = Masters(flat), []
    for _ in range(12):
        s.backward()
        s.copy_gradients()
        norms.append(norm_of([m.grad for m in s.master]))
        nn.utils.clip_grad_norm_(s.master, LIMIT)
        s.step()
    steps, clips = steps_and_clips(running)
    assert steps.norm == pytest.approx(norms, rel=1e-5)
    assert steps.clipped_norm == pytest.approx([LIMIT] * 12, rel=1e-4)
    assert {(clip.optimizer, clip.reached) for clip in clips} == {(0, len(s.master))}


@pytest.mark.parametrize("flat", [False, True])
def test_what_is_clipped_and_then_copied_is_clipped(flat, recording):
    running = recording()
    s, norms = Masters(flat), []
    for _ in range(12):
        s.backward()
        norms.append(norm_of([p.grad for p in s.model.parameters()]) / SCALE)
        nn.utils.clip_grad_norm_(s.model.parameters(), SCALE * LIMIT)
        s.copy_gradients()
        s.step()
    steps, clips = steps_and_clips(running)
    assert steps.norm == pytest.approx(norms, rel=1e-2)  # bfloat16 rounds what it clips
    assert steps.clipped_norm == pytest.approx([LIMIT] * 12, rel=1e-2)
    assert {(clip.optimizer, clip.reached, clip.owned) for clip in clips} == {(0, len(s.master), len(s.master))}


def test_what_is_copied_and_then_clipped_is_not(recording):
    running = recording()
    s, norms = Masters(), []
    for _ in range(12):
        s.backward()
        s.copy_gradients()
        norms.append(norm_of([m.grad for m in s.master]))
        nn.utils.clip_grad_norm_(s.model.parameters(), LIMIT)
        s.step()
    steps, clips = steps_and_clips(running)
    assert steps.norm == pytest.approx(norms, rel=1e-5)
    assert steps.missing["clipped"].all()
    assert {(clip.optimizer, clip.reached, clip.owned) for clip in clips} == {(None, 4, 0)}


def test_gradients_that_are_the_same_tensors(recording):
    """As a worker shares them with a net that all workers train: there the clipping reached what is stepped."""
    shared = net()
    local = copy.deepcopy(shared)
    running = recording()
    optimizer = torch.optim.SGD(shared.parameters(), lr=0.1)
    norms = []
    for _ in range(5):
        local.load_state_dict(shared.state_dict())
        x, y = data()
        local.zero_grad()
        (local(x) - y).square().mean().backward()
        norms.append(norm_of([p.grad for p in local.parameters()]))
        for p, q in zip(shared.parameters(), local.parameters(), strict=True):
            p.grad = q.grad
        nn.utils.clip_grad_norm_(local.parameters(), LIMIT)
        optimizer.step()
    steps, _ = steps_and_clips(running)
    assert steps.norm == pytest.approx(norms, rel=1e-5)
    assert steps.clipped_norm == pytest.approx([LIMIT] * 5, rel=1e-4)


@pytest.mark.parametrize("inner", [1, 3])
def test_a_copy_that_is_adapted_by_hand_is_no_training(inner, recording):
    """First-order MAML: the copy is updated by hand, and what its last gradient is goes to the net that is trained."""
    running = recording()
    meta = net()
    optimizer = torch.optim.SGD(meta.parameters(), lr=0.1)
    norms, losses = [], []
    for _ in range(6):
        fast = copy.deepcopy(meta)
        for step in range(inner + 1):
            x, y = data()
            loss = (fast(x) - y).square().mean()
            fast.zero_grad()
            loss.backward()
            if step < inner:
                with torch.no_grad():
                    for p in fast.parameters():
                        p -= 0.01 * p.grad  # noqa: PLW2901
        losses.append(loss.item())
        for p, q in zip(meta.parameters(), fast.parameters(), strict=True):
            p.grad = q.grad.clone()
        norms.append(norm_of([p.grad for p in meta.parameters()]))
        optimizer.step()
    steps, _ = steps_and_clips(running)
    assert steps.norm == pytest.approx(norms, rel=1e-5)


def test_an_optimizer_that_is_there_and_never_steps(recording):
    """What is updated by hand beside it is the training, known at the end if not before."""
    running = recording()
    idle = torch.optim.SGD(net().parameters(), lr=0.1)
    w = torch.ones(3, requires_grad=True)
    for _ in range(5):
        w.sum().backward()
        nn.utils.clip_grad_norm_([w], 1.0)
        w.data -= 0.1 * w.grad
        w.grad = None
    assert idle is not None
    steps, clips = steps_and_clips(running)
    assert steps.norm == pytest.approx([3**0.5] * 5)
    assert steps.clipped_norm == pytest.approx([1.0] * 5, rel=1e-5)
    assert len(clips) == 5


def test_by_hand_and_then_by_an_optimizer(recording):
    w = torch.ones(3, requires_grad=True)
    running = recording()
    for _ in range(5):
        w.sum().backward()
        w.data -= 0.1 * w.grad
        w.grad = None
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        model(data()[0]).sum().backward()
        optimizer.step()
    running.close()
    with Run.open(running.path) as run:
        assert sorted(len(run.steps(number)) for number in run.optimizers) == [4, 5]


def test_clipping_in_place_of_the_scripts_own_leaves_the_copy_alone(tmp_path):
    session = Session(Recorder(lambda: RunWriter.create(tmp_path)))
    instead = ReplaceClipping(Clipping.parse("global_norm:0.05"), pytest.fail)
    patches = Patches(lambda: session, instead, pytest.fail)
    try:
        s = Masters()
        for _ in range(4):
            before = [m.detach().clone() for m in s.master]
            s.backward()
            s.copy_gradients()
            s.step()
            assert norm_of([m.detach() - b for m, b in zip(s.master, before, strict=True)]) == pytest.approx(
                0.1 * LIMIT, rel=1e-4
            )
    finally:
        patches.remove()
        session.close()
