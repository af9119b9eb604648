"""What the recorder and the streams make of tensors, next to plain arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from gradclip.runs.schema import ABSENT
from gradclip.watch.record.recorder import Measured, _on_host, _read
from gradclip.watch.record.step_numbers import factors
from gradclip.watch.record.stream import Stream


def one_factor(before, after):
    with np.errstate(all="ignore"):
        (found,) = factors(before[None], after[None])
    return found


def step_of(stream, number, **more):
    return Measured(stream, number, torch.tensor([1.0 + number, 2.0], dtype=torch.float64), **more)


def test_what_waits_is_read_in_its_order_and_in_float64():
    stream = Stream(0, [nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(2))])
    loss = torch.tensor([[0.1]], requires_grad=True)
    waiting = [
        step_of(stream, 0, losses=[loss, torch.tensor(3.0, dtype=torch.bfloat16)], threshold=torch.tensor(0.5)),
        step_of(stream, 1, after=torch.tensor([0.25, math.nan]), skipped=torch.tensor(True)),
        step_of(stream, 2),
    ]
    found = _read(waiting)
    assert all(part.dtype == np.float64 for step in found for part in step)
    want = [[[1.0, 2.0], [0.5], [np.float32(0.1)], [3.0]], [[2.0, 2.0], [0.25, math.nan], [1.0]], [[3.0, 2.0]]]
    assert len(found) == len(want)
    for step, expected in zip(found, want, strict=True):
        for part, numbers in zip(step, expected, strict=True):
            np.testing.assert_array_equal(part, numbers)


@pytest.mark.parametrize("device", ["cpu", "cuda"], ids=["on the host", "one copy"])
def test_vectors_come_back_in_their_order(device):
    vectors = [torch.tensor([1.0, 2.0]), torch.zeros(0), torch.tensor([3], dtype=torch.int64), torch.tensor([4.0, 5.0, 6.0])]
    found = _on_host(vectors, torch.device(device))  # the tensors are here: it only says which way they come
    assert [part.tolist() for part in found] == [[1, 2], [], [3], [4, 5, 6]]
    assert {part.dtype for part in found} == {np.dtype(np.float64)}


@pytest.mark.parametrize(
    ("after", "factor"),
    [
        ([0.5, 1.0, 0.0, ABSENT], 0.5),
        ([0.5 * (1 + 5e-6), 1.0, 0.0, ABSENT], 0.5),  # as float32 rounds it
        ([0.5, 1.1, 0.0, ABSENT], None),
        ([0.5, math.inf, 0.0, ABSENT], None),
        ([math.nan, math.nan, math.nan, ABSENT], None),
    ],
)
def testone_factor(after, factor):
    found = one_factor(np.array([1.0, 2.0, 0.0, ABSENT]), np.array(after))
    assert found == (None if factor is None else pytest.approx(factor, rel=1e-5))


def test_one_tensor_alone_was_clipped():
    assert one_factor(np.ones(4), np.array([0.5, 0.9, 0.5, 0.5])) is None


def test_there_is_no_factor_of_nothing():
    nothing, broken = np.array([0.0, ABSENT]), np.array([math.inf, 1.0])
    assert one_factor(nothing, nothing) is None
    assert one_factor(broken, broken) is None


class Own(nn.Parameter):
    """A class whose detached tensors are not plain ones."""

    def detach(self):
        return self.data.as_subclass(Weight)


class Weight(torch.Tensor):
    """What such a class detaches to."""


@pytest.mark.parametrize("kind", [nn.Parameter, Own])
def test_how_far_each_tensor_moved(kind):
    torch.manual_seed(0)
    weights = [torch.randn(3, 2), torch.randn(4), torch.randn(2), torch.randn(5, dtype=torch.float64)]
    parameters = [kind(weights[0]), nn.Parameter(weights[1]), nn.Parameter(weights[2]), nn.Parameter(weights[3])]
    moves = [torch.randn_like(weight) for weight in weights]
    stream = Stream(0, parameters)
    stream.before_update()
    for parameter, move in zip(parameters, moves, strict=True):
        parameter.data = parameter.data + move
    parameters[2].data = torch.zeros(7)  # another shape: no distance
    late = nn.Parameter(torch.ones(1))
    stream.adopt([late])
    want = [float(moves[0].double().norm()), float(moves[1].double().norm()), ABSENT, float(moves[3].norm()), ABSENT]
    moved = stream.update_norms()
    assert moved is not None
    assert moved.tolist() == pytest.approx(want, rel=1e-6)
    assert stream.update_norms() is None
