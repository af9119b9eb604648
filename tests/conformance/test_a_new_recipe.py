"""What CONTRIBUTING says a recipe costs is all it costs: a rule, one decorated function, one decorated formula."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import gradclip
from gradclip.cli import app
from gradclip.cli.recipes import markdown
from gradclip.recipes import RECIPES, recipe
from gradclip.thresholds import Threshold
from tests.conformance.following import EXACT, follow
from tests.reference import formula, rules


@dataclass(frozen=True)
class Previous(Threshold):
    """A multiple of the previous norm, clipped or not."""

    factor: float = 2.0
    stateful = True

    def init(self, norms):
        return {"previous": 0 * norms}

    def limits(self, norms, state, context):
        xp = np if isinstance(norms, np.ndarray) else torch
        before = state["previous"]
        return xp.where(before > 0, self.factor * before, xp.inf), {"previous": xp.where(norms > 0, norms, before)}


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr(rules, "_FORMULAS", dict(rules._FORMULAS))
    known = dict(RECIPES)

    @recipe("T = factor · the previous norm", "nobody; a test")
    def jump(factor: float = 2.0, *, exclude=(), nonfinite="skip") -> gradclip.Clipping:
        """Let a tensor's norm jump only so far."""
        return gradclip.Clipping(gradclip.PerTensor(exclude), 2, Previous(factor), nonfinite=nonfinite)

    @formula(Previous)
    def _jump(rule, norms, *_):
        return [np.inf] + [rule.factor * n for n in norms[:-1]]

    yield
    RECIPES.clear()
    RECIPES.update(known)


def test_it_is_in_the_table():
    shown = CliRunner().invoke(app, ["recipes"], env={"COLUMNS": "200"}).stdout
    assert "jump " in shown
    assert "Let a tensor's norm jump only so far." in shown
    row = "| `jump` | Let a tensor's norm jump only so far. | T = factor · the previous norm | `factor=2` | nobody; a test |"
    assert row in markdown().splitlines()


@pytest.mark.parametrize("spelling", ["jump", "jump:3.0", "jump:exclude=*.bias|head.*", "jump:3.0,nonfinite=zero"])
def test_it_has_a_spelling(spelling):
    clipping = gradclip.parse(spelling)
    assert isinstance(clipping.threshold, Previous)
    assert str(clipping) == spelling
    assert (
        gradclip.parse(str(gradclip.Chain("value:1.0,nonfinite=zero", "jump:4.0,nonfinite=zero"))).stages[1].threshold.factor
        == 4
    )
    with pytest.raises(gradclip.RecipeError, match="jump has no argument 'fcator': it takes factor, exclude, nonfinite"):
        gradclip.parse("jump:fcator=3")
    with pytest.raises(gradclip.RecipeError, match="did you mean 'jump'"):
        gradclip.parse("jmup")


def test_it_attaches_and_saves():
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    with gradclip.attach(optimizer, "jump:3.0") as handle:
        for size in (1.0, 10.0):
            weight.grad = torch.tensor([0.0, size])
            optimizer.step()
        assert weight.grad.tolist() == [0.0, 3.0]
        state = handle.state_dict()
    assert state["recipe"] == "jump:3.0"
    assert state["threshold.previous"].tolist() == [10.0]


@pytest.mark.parametrize("dtype", EXACT, ids=str)
def test_it_is_held_to_its_formula(dtype):
    assert follow("jump:1.5", dtype)
    assert follow("jump:1.5", dtype, attached=True)


def test_a_wrong_formula_is_found():
    formula(Previous)(lambda rule, norms, *_: [np.inf] + [rule.factor * n * 1.01 for n in norms[:-1]])
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        follow("jump:1.5", torch.float64)


def test_without_a_formula_it_is_said():
    del rules._FORMULAS[Previous]
    with pytest.raises(KeyError):
        follow("jump", torch.float64)
