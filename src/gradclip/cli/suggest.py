"""``gradclip suggest``: which threshold a run's norms ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gradclip.cli.run_files import RunPath, opened

if TYPE_CHECKING:
    from gradclip.diagnosis.readings.run_data import RunData
    from gradclip.report.table import Table

__all__ = ["suggest"]


def suggest(run: RunPath = None) -> None:
    """Suggest a --clip for a run: thresholds and how many steps each would clip, the recipes that fit, and one of them."""
    from gradclip.cli.tables import print_parts
    from gradclip.diagnosis.readings.run_data import read_run

    with opened(run) as found:
        print_parts(_parts(read_run(found)))


def _parts(run: RunData) -> Iterator[str | Table]:
    from gradclip.diagnosis.advice.optimizer_suggestion import suggestion_of
    from gradclip.report.histogram import candidate_table
    from gradclip.report.recipe_choices import choice_table

    if not run.optimizers:
        yield f"{run.title}: no step was recorded, so nothing can be suggested."
    for optimizer in run.optimizers:
        of = f"Optimizer {optimizer.number}: " if len(run.optimizers) > 1 else ""
        advice = suggestion_of(optimizer)
        yield of + advice.sentence
        if advice.choices:
            yield candidate_table(optimizer.norms)
            yield choice_table(advice)
        else:
            yield "\n".join(advice.notes)
