"""The recipes that fit a run, as a table."""

from __future__ import annotations

from gradclip.diagnosis.advice.recipe_suggestion import Suggestion
from gradclip.report.table import Table

__all__ = ["choice_table"]


def choice_table(suggestion: Suggestion) -> Table:
    """List the recipes that fit, the recommended one first."""
    rows = [(f"--clip {choice.recipe}", choice.share, choice.why) for choice in suggestion.choices]
    return Table("Recipes that fit, the suggested one first", ("recipe", "would clip", "why"), rows, notes=suggestion.notes)
