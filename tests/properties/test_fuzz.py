"""The first cases of the fuzzer (``python -m benchmarks.fuzz`` goes on with others)."""

from __future__ import annotations

import pytest

from benchmarks.fuzz import run_case
from benchmarks.fuzz_cases import MAKERS, Case
from gradclip.backends import elements
from gradclip.recipes import RECIPES
from gradclip.torch import scaling

CASES, CHUNK = 1000, 100


@pytest.mark.parametrize("first", range(0, CASES, CHUNK))
def test_nothing_is_wrong(first):
    for number in range(first, first + CHUNK):
        case, found = run_case(number)
        assert not found, f"{case}\n" + "\n".join(found)


def test_every_recipe_is_tried_with_arguments_of_its_own():
    assert set(MAKERS) == set(RECIPES)
    tried = [Case(number).recipe for number in range(CASES)]
    assert set(tried) == {*RECIPES, "chain", "point"}
    assert min(map(tried.count, tried)) > CASES / 50


@pytest.mark.parametrize(
    ("module", "name", "broken"),
    [(scaling, "_is_far", lambda reach, backend: False), (elements, "_fits", lambda factor: True)],
    ids=["no care for what is out of range", "factors rounded to float32"],
)
def test_it_finds_what_is_broken(monkeypatch, module, name, broken):
    monkeypatch.setattr(module, name, broken)
    assert any(run_case(number)[1] for number in range(CASES))
