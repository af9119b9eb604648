"""A parameter that is given another shape: laid out anew, or refused in words before anything is changed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import gradclip
from gradclip.errors import StateError, TargetError
from tests import reference
from tests.support import numpy_of

RECIPES = ["agc:0.01", "block_rms:0.5", "tensor_norm:0.7", "global_norm:1.0", "value:0.25", "tensor_norm:1,norm=inf"]
SHAPES = [
    ((1000, 3), (1999,)),
    ((4, 3), (7,)),
    ((1000, 3), (1500, 2)),  # the old number of units divides the new number of elements
    ((2, 2), (40, 3)),
    ((6,), (2, 3)),
    ((3, 5), (3, 0)),
    ((3, 5), ()),
]

PER_UNIT = gradclip.Clipping(gradclip.PerUnit(), gradclip.L2, gradclip.adagc().threshold)
BY_WEIGHT = gradclip.Clipping(gradclip.PerTensor(), gradclip.L2, gradclip.Relative(0.01))


@pytest.fixture(params=["kernel", "no kernel"])
def way(request, monkeypatch):
    """With the kernel, and with PyTorch's own operations."""
    if request.param == "no kernel":
        monkeypatch.setattr("gradclip.backends.cpu._kernel", None)
    return request.param


def swapped(parameter, shape):
    """Give a parameter other data, and a gradient of that shape, of which some must be clipped."""
    torch.manual_seed(0)
    parameter.grad = None
    parameter.data = torch.rand(shape) + 0.5
    parameter.grad = torch.randn(shape) * 50


def expected(grads, weights, recipe):
    """The reference's answer for tensors that had their shapes from the start."""
    return reference.clip(gradclip.parse(recipe), [numpy_of(g) for g in grads], [numpy_of(w) for w in weights]).grads


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("before", "after"), SHAPES)
def test_a_clipper_follows_a_parameter_to_another_shape(way, recipe, before, after):
    beside, moved = nn.Parameter(torch.ones(5, 2)), nn.Parameter(torch.ones(before))
    clipper = gradclip.Clipper([beside, moved], recipe)
    for shape in (before, after, before):
        swapped(beside, (5, 2))
        swapped(moved, shape)
        want = expected([beside.grad, moved.grad], [beside, moved], recipe)
        clipper.clip_()
        for p, w in zip((beside, moved), want, strict=True):
            np.testing.assert_allclose(p.grad, w, rtol=1e-6)


def test_an_attachment_follows(way):
    moved = nn.Parameter(torch.ones(4, 3))
    optimizer = torch.optim.SGD([moved], lr=0.1)
    with gradclip.attach(optimizer, "agc:0.01"):
        swapped(moved, (7,))
        want = expected([moved.grad], [moved], "agc:0.01")
        optimizer.step()
        np.testing.assert_allclose(moved.grad, want[0], rtol=1e-6)


def test_a_chain_follows(way):
    moved = nn.Parameter(torch.ones(4, 3))
    clipper = gradclip.Clipper([moved], gradclip.Chain(gradclip.agc(0.01), gradclip.global_norm(0.02)))
    swapped(moved, (9, 5))
    first = expected([moved.grad], [moved], "agc:0.01")
    want = reference.clip(gradclip.global_norm(0.02), first).grads
    clipper.clip_()
    np.testing.assert_allclose(moved.grad, want[0], rtol=1e-6)


def test_a_model_clipped_once_and_again_follows(way):
    model = nn.Linear(3, 4)
    for shape in ((4, 3), (5, 3), (7,)):
        swapped(model.weight, shape)
        swapped(model.bias, (4,))
        want = expected([model.weight.grad, model.bias.grad], [model.weight, model.bias], "agc:0.01")
        gradclip.clip_(model, "agc:0.01")
        np.testing.assert_allclose(model.weight.grad, want[0], rtol=1e-6)
        np.testing.assert_allclose(model.bias.grad, want[1], rtol=1e-6)


@pytest.mark.parametrize("recipe", ["tensor_norm:0.7", "global_norm:1.0", "value:0.25", "block_rms:0.5"])
def test_a_gradient_of_the_old_shape_is_clipped_as_it_is_where_weights_do_not_matter(way, recipe):
    stale = nn.Parameter(torch.ones(4, 3))
    clipper = gradclip.Clipper([stale], recipe)
    swapped(stale, (4, 3))
    want = expected([stale.grad], [stale], recipe)
    stale.data = torch.ones(7)
    clipper.clip_()
    np.testing.assert_allclose(stale.grad, want[0], rtol=1e-6)


@pytest.mark.parametrize("recipe", ["agc:0.01", BY_WEIGHT])
def test_a_gradient_of_the_old_shape_is_refused_before_anything_is_changed(way, recipe):
    beside, stale = nn.Parameter(torch.ones(5, 2)), nn.Parameter(torch.ones(4, 3))
    clipper = gradclip.Clipper({"beside": beside, "stale": stale}, recipe)
    swapped(beside, (5, 2))
    stale.grad = torch.full((4, 3), 100.0)
    stale.data = torch.ones(7)
    kept = beside.grad.clone()
    with pytest.raises(TargetError, match=r"of 'stale' ha.* shape .*zero_grad"):
        clipper.clip_()
    assert torch.equal(beside.grad, kept)
    assert torch.equal(stale.grad, torch.full((4, 3), 100.0))
    assert clipper.step == 0
    swapped(stale, (7,))
    clipper.clip_()  # and goes on with new gradients
    assert clipper.step == 1


HISTORIES = ["adagc", "autoclip", "zclip", "norm_growth", "spam"]


@pytest.mark.parametrize("recipe", HISTORIES)
def test_a_history_goes_on_where_its_blocks_are_still_there(way, recipe):
    """The same norms before and after: the same decisions as without the change."""
    plain, moved = (nn.Parameter(torch.ones(4, 3)) for _ in range(2))
    clippers = [gradclip.Clipper([p], recipe) for p in (plain, moved)]
    torch.manual_seed(1)
    for number in range(6):
        grad = torch.randn(12) * 3**number
        shape = (4, 3) if number < 3 else (2, 6)
        moved.grad = None
        moved.data = torch.ones(shape)
        plain.grad, moved.grad = grad.reshape(4, 3).clone(), grad.reshape(shape).clone()
        for clipper in clippers:
            clipper.clip_()
        assert torch.equal(plain.grad.flatten(), moved.grad.flatten())
    plain_state, moved_state = (
        {k: v.flatten().tolist() if isinstance(v, torch.Tensor) else v for k, v in clipper.state_dict().items()}
        for clipper in clippers
    )
    assert plain_state == moved_state  # the history of elements has the shape of its parameter


def test_a_history_of_units_that_are_no_more_is_refused_before_anything_is_changed(way):
    beside, moved = nn.Parameter(torch.ones(5, 2)), nn.Parameter(torch.ones(4, 3))
    clipper = gradclip.Clipper([beside, moved], PER_UNIT)
    for shape in ((4, 3), (4, 8)):  # as many units: it goes on
        swapped(beside, (5, 2))
        swapped(moved, shape)
        clipper.clip_()
    for shapes in (((5, 2), (3, 8)), ((4, 2), (5, 3))):  # another number; as many, but of other tensors
        for p, shape in zip((beside, moved), shapes, strict=True):
            swapped(p, shape)
        before, state = [beside.grad.clone(), moved.grad.clone()], copy.deepcopy(clipper.state_dict())
        with pytest.raises(StateError, match="make a new Clipper, or detach"):
            clipper.clip_()
        assert torch.equal(beside.grad, before[0])
        assert torch.equal(moved.grad, before[1])
        assert repr(clipper.state_dict()) == repr(state)
    clipper = gradclip.Clipper([beside, moved], PER_UNIT)
    swapped(moved, (9, 2))
    clipper.clip_()  # nothing learnt yet


@pytest.mark.parametrize(
    ("grads", "params", "match"),
    [
        ([torch.ones(64, 3)], [torch.ones(127)], r"weights of '0' have shape \(127,\), but its gradient \(64, 3\)"),
        ([torch.ones(40, 3)], [torch.ones(2, 2)], r"weights of '0' have shape \(2, 2\)"),
        ([torch.ones(3), torch.ones(40, 3)], [torch.ones(3), torch.ones(3, 40)], "weights of '1'"),
        ([torch.ones(4, 3), None], [torch.ones(4, 3)], "2 gradients, but 1 params"),
        ({"w": torch.ones(4, 3)}, {"w": torch.ones(12)}, "weights of 'w'"),
        (torch.ones(4, 3), torch.ones(12, 1), "weights of '0'"),
    ],
)
@pytest.mark.parametrize("recipe", ["agc:0.01", "global_norm:1.0", "trust:0.1"])
def test_weights_that_do_not_fit_the_gradients_are_refused(way, recipe, grads, params, match):
    with pytest.raises(TargetError, match=match):
        gradclip.clip(grads, recipe, params=params)


def test_weights_without_a_gradient_may_have_any_shape(way):
    weights = [torch.ones(4, 3), torch.ones(7, 2)]
    clipped, none = gradclip.clip([torch.ones(4, 3), None], "agc:0.01", params=weights)
    assert none is None
    np.testing.assert_allclose(clipped, expected([torch.ones(4, 3)], weights[:1], "agc:0.01")[0], rtol=1e-6)


def test_clipping_inside_backward_refuses_a_parameter_of_another_shape(way):
    moved = nn.Parameter(torch.ones(4, 3))
    in_backward = gradclip.InBackward([moved], "agc:0.01")
    moved.data = torch.ones(7)
    with pytest.raises(TargetError, match="make a new InBackward"):
        (100 * moved).sum().backward()
    in_backward.detach()
    assert torch.equal(moved.grad, torch.full((7,), 100.0))


def test_sparse_gradients_are_compared_by_their_full_shape(way):
    embedding = nn.Embedding(6, 3, sparse=True)
    clipper = gradclip.Clipper(embedding, "tensor_norm:0.5")
    for rows in (6, 9):
        embedding.weight.grad = None
        embedding.weight.data = torch.ones(rows, 3)
        (10 * embedding(torch.tensor([0, rows - 1]))).sum().backward()
        clipper.clip_()
        assert float(embedding.weight.grad.to_dense().norm()) == pytest.approx(0.5, rel=1e-6)
