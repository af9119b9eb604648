"""The seam holds: a backend that the package has never seen passes the conformance suite through the same protocol."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradclip
import gradclip.torch as drop_in
from gradclip.backends import choose
from tests.backends.numpy_backend import NumPy
from tests.conformance import test_recipes as conformance
from tests.conformance.test_recipes import (  # noqa: F401 (collected here again, with the backend below)
    test_matches_on_strided_views,
    test_matches_the_reference,
    test_mixed_dtypes_share_one_norm,
    test_sparse_rows_are_merged_then_measured,
    test_units_follow_the_layer,
)

assert conformance.RECIPES


@pytest.fixture(autouse=True)
def chosen(monkeypatch, request):
    """Offer NumPy's backend alone, and note what it measures."""
    measured = []

    def norms(self, p, own=NumPy.norms):
        measured.append(p)
        return own(self, p)

    monkeypatch.setattr(NumPy, "norms", norms)
    monkeypatch.setattr("gradclip.backends.chooser.KERNELS", [NumPy.take])
    yield measured
    refused = "complex" in request.node.name and "value:" in request.node.name  # before anything is measured
    assert measured or refused, "no backend of NumPy's was asked"


def test_the_drop_in_rides_on_it(chosen):
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    assert float(drop_in.clip_grad_norm_([parameter], 1.0)) == 5.0
    torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8]))
    assert chosen == [2.0]


def test_it_shares_a_list_with_stock_operations():
    """What it leaves, a sparse gradient, is somebody else's, and one norm is over both."""
    table, dense = nn.Parameter(torch.zeros(3, 1)), nn.Parameter(torch.zeros(1))
    table.grad = torch.sparse_coo_tensor([[1]], [[3.0]], (3, 1), check_invariants=True)
    dense.grad = torch.tensor([4.0])
    result = gradclip.clip_({"table": table, "dense": dense}, "global_norm:1.0")
    assert float(result.norm) == 5.0
    assert result.tensor_norms.tolist() == [3.0, 4.0]
    torch.testing.assert_close(table.grad.to_dense(), torch.tensor([[0.0], [0.6], [0.0]]))
    torch.testing.assert_close(dense.grad, torch.tensor([0.8]))


def test_it_is_the_one_that_is_chosen():
    assert isinstance(choose([torch.ones(2)]), NumPy)
    choose([torch.ones(2)]).norms(2)
