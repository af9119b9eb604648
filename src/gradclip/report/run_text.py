"""A run in a terminal: the same story as the page, on a screen or two."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from gradclip.diagnosis.advice.optimizer_suggestion import suggestion_of
from gradclip.diagnosis.finding import Finding
from gradclip.diagnosis.formatting import number, plural, shorten
from gradclip.diagnosis.readings.layer_groups import common_prefix
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.run_verdict import verdict
from gradclip.report.event_order import order_table
from gradclip.report.findings import findings_text
from gradclip.report.histogram import candidate_table
from gradclip.report.layer_table import layer_table
from gradclip.report.notice import Notice
from gradclip.report.ratios import middle_ratios
from gradclip.report.run_page import rates_of
from gradclip.report.sparkline import sparkline
from gradclip.report.table import Table

__all__ = ["MOST_LAYERS", "run_text"]

ENDS = "Ratio: update norm / weight norm, the median; 0.001 is usual. × in a trend: NaN or Inf."
MOST_LAYERS = 16
"""Rows of the table of layers."""
NAME, WIDTH = 17, 10
"""Letters of a name, and of a sparkline."""


def run_text(run: RunData, findings: Sequence[Finding] = ()) -> Iterator[str | Table | Notice]:
    """Tell what happened in a run, in sentences and tables.

    Args:
        run: read with at most ``MOST_LAYERS`` layers.
        findings: what is wrong with it, the gravest first.
    """
    yield verdict(run)
    yield from findings_text(findings, len(run.optimizers) > 1)
    for optimizer in run.optimizers:
        yield _heading(optimizer, len(run.optimizers) > 1)
        yield from _optimizer(optimizer)
    order = order_table(run.events)
    if order is not None:
        yield order


def _heading(optimizer: OptimizerRun, several: bool) -> str:
    which = f"Optimizer {optimizer.number}: " if several else ""
    return f"{which}{plural(optimizer.tensors, 'tensor')}, learning rate {rates_of(optimizer)}"


def _optimizer(optimizer: OptimizerRun) -> Iterator[str | Table]:
    lines = (_line("loss", optimizer, False), _line("norm", optimizer, True))
    yield "\n".join(line for line in lines if line)
    if optimizer.layers.norms.size:
        yield _layers(optimizer)
    if len(optimizer.norms):
        yield candidate_table(optimizer.norms)
    advice = suggestion_of(optimizer)
    yield "\n".join([advice.sentence, *advice.notes])


def _line(name: str, optimizer: OptimizerRun, log: bool) -> str:
    values = optimizer.steps.measured(name)
    if not len(values):
        return ""
    ends = f"{number(float(values[0]))} → {number(float(values[-1]))}"
    return f"{name:5}{sparkline(values, 50, log=log)}  {ends}"


def _layers(optimizer: OptimizerRun) -> Table:
    """The page's table, with a picture and without what is hardly ever needed."""
    table = layer_table(optimizer.layers)
    ratios = middle_ratios(optimizer.ratios) or [math.nan] * len(table.rows)
    shared = common_prefix([row[0] for row in table.rows])
    rows = []
    for i, (name, _, *numbers, _bad) in enumerate(table.rows):
        values = optimizer.layers.norms[~optimizer.layers.missing[:, i], i]
        ratio = number(ratios[i]) if math.isfinite(ratios[i]) else "–"
        rows.append((shorten(name.removeprefix(shared), NAME), *numbers, ratio, sparkline(values, WIDTH, log=True)))
    columns = ("layer", *table.columns[2:-1], "ratio", "trend")
    begin = [f"All names begin with {shared}"] if shared else []
    return Table(table.caption, columns, rows, frozenset(range(1, 7)), [*begin, *table.notes, ENDS])
