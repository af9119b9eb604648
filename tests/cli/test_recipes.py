"""``gradclip recipes`` shows every recipe whole, however wide the terminal is."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from gradclip.cli import app
from gradclip.recipes import RECIPES


@pytest.mark.parametrize("width", [80, 120, 200])
def test_every_recipe_is_listed_within_the_width(width):
    shown = CliRunner().invoke(app, ["recipes"], env={"COLUMNS": str(width)})
    assert shown.exit_code == 0
    assert all(f"{name} " in shown.stdout for name in RECIPES)
    table = shown.stdout.split("Spell a recipe")[0]
    assert max(map(len, table.splitlines())) <= width


def test_narrow_terminals_show_formula_arguments_and_source_on_lines_of_their_own():
    lines = [line.strip() for line in CliRunner().invoke(app, ["recipes"], env={"COLUMNS": "80"}).stdout.splitlines()]
    for recipe in RECIPES.values():
        assert {recipe.formula, recipe.defaults, recipe.source} <= set(lines), recipe.name
