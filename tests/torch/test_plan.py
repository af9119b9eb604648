"""The layout of a method over a model is kept while it fits, and not a step longer."""

from __future__ import annotations

import gc as collector
import weakref

import pytest
import torch
from torch import nn

import gradclip
from gradclip.torch.plan import plan_for

RECIPE = gradclip.global_norm(1.0)


def test_it_is_kept_for_the_same_model_and_method():
    model = nn.Linear(3, 2)
    plan = plan_for(RECIPE, model)
    assert plan_for(gradclip.global_norm(1.0), model) is plan
    assert plan_for(gradclip.global_norm(2.0), model) is not plan
    assert plan_for(RECIPE, nn.Linear(3, 2)) is not plan
    assert plan_for(RECIPE, list(model.parameters())) is not plan


def _replace(model):
    model.bias = nn.Parameter(torch.zeros(2))


def _rename(model):
    model.gain = model.bias
    del model.bias


def _remove(model):
    model.bias = None


def _add(model):
    model.more = nn.Parameter(torch.zeros(1))


def _add_a_module(model):
    model.more = nn.Linear(1, 1)


def _reshape(model):
    model.bias.data = torch.zeros(5)


@pytest.mark.parametrize("change", [_replace, _rename, _remove, _add, _add_a_module, _reshape])
def test_a_changed_model_is_laid_out_again(change):
    model = nn.Linear(3, 2)
    before = plan_for(RECIPE, model)
    change(model)
    after = plan_for(RECIPE, model)
    assert after is not before
    assert after.target.names == tuple(name for name, _ in model.named_parameters())
    assert [e.shape for e in after.target.entries] == [p.shape for p in model.parameters()]


def test_it_does_not_keep_a_model_alive():
    model = nn.Linear(3, 2)
    plan_for(RECIPE, model)
    gone = weakref.ref(model)
    del model
    collector.collect()
    assert gone() is None
