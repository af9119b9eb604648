"""Every registered recipe, at its defaults, does what its formula says: a new one is held to it without being listed."""

from __future__ import annotations

from inspect import Parameter

import pytest
import torch

from gradclip.recipes import RECIPES
from tests.conformance.following import follow


def _methods():
    return {
        recipe.name: recipe.build(0.5) if next(iter(recipe.parameters.values())).default is Parameter.empty else recipe.build()
        for recipe in RECIPES.values()
    }


def _needs_lr(clipping):
    return any(stage.threshold.needs_lr for stage in clipping.stages)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", [name for name, clipping in _methods().items() if not _needs_lr(clipping)])
def test_it_follows_its_formula(name, dtype):
    follow(str(_methods()[name]), dtype, attached=True, steps=40, least=0.0101 if name == "autoclip" else 0.0)


def test_only_those_that_read_the_learning_rate_are_held_elsewhere():
    """In tests/adaptive: TestTrust, and test_stride."""
    assert {name for name, clipping in _methods().items() if _needs_lr(clipping)} == {"trust", "auto"}
