"""The page of a run: its verdict, then what led to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gradclip import __version__
from gradclip.diagnosis.advice.optimizer_suggestion import suggestion_of
from gradclip.diagnosis.finding import Finding
from gradclip.diagnosis.formatting import local_time, number, percent
from gradclip.diagnosis.readings.run_data import OptimizerRun, RunData
from gradclip.diagnosis.run_verdict import verdict
from gradclip.report import timeline
from gradclip.report.charts import Chart
from gradclip.report.event_order import order_table
from gradclip.report.findings import leading, others
from gradclip.report.heatmap import heatmap
from gradclip.report.histogram import candidate_table, histogram
from gradclip.report.page import Page, Section
from gradclip.report.ratios import ratios
from gradclip.report.recipe_choices import choice_table
from gradclip.report.table import Table

__all__ = ["overview", "rates_of", "run_page"]


def run_page(run: RunData, findings: Sequence[Finding] = ()) -> Page:
    """Lay out a run, and what is wrong with it, the gravest first."""
    several = len(run.optimizers) > 1
    tables = [table for table in (others(findings), overview(run)) if table is not None]
    order = order_table(run.events)
    sections = [section for optimizer in run.optimizers for section in _sections(run, optimizer)]
    if order is not None:
        sections.append(Section("Order of events", [order]))
    return Page(
        run.title,
        verdict(run),
        notices=leading(findings, several),
        tables=tables,
        facts=_facts(run),
        sections=sections,
    )


def overview(run: RunData) -> Table:
    """One row for each optimizer."""
    columns = (
        "optimizer",
        "tensors",
        "steps",
        "last loss",
        "median norm",
        "largest norm",
        "steps clipped",
        "NaN or Inf",
        "skipped",
        "learning rate",
    )
    return Table(f"Status: {run.status}", columns, [_row(optimizer) for optimizer in run.optimizers], frozenset(range(1, 10)))


def _row(optimizer: OptimizerRun) -> tuple[str, ...]:
    steps = optimizer.steps
    finite = optimizer.norms[np.isfinite(optimizer.norms)]
    losses = steps.measured("loss")
    return (
        str(optimizer.number),
        f"{optimizer.tensors:,}",
        f"{len(steps):,}",
        number(float(losses[-1])) if len(losses) else "–",
        number(float(np.median(finite))) if len(finite) else "–",
        number(float(finite.max())) if len(finite) else "–",
        percent(optimizer.steps.clip_rate) if optimizer.steps.clip_attempts else "not clipped",
        f"{int(optimizer.bad.sum()):,}",
        f"{int(steps.skipped.sum()):,}",
        rates_of(optimizer),
    )


def rates_of(optimizer: OptimizerRun) -> str:
    """Say which learning rates an optimizer had."""
    rates = optimizer.rates[np.isfinite(optimizer.rates)]
    if not len(rates):
        return "–"
    low, high = float(rates.min()), float(rates.max())
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def _sections(run: RunData, optimizer: OptimizerRun) -> Iterator[Section]:
    of = f"Optimizer {optimizer.number}: " if len(run.optimizers) > 1 else ""
    advice = suggestion_of(optimizer)
    thresholds = [histogram(optimizer.norms), candidate_table(optimizer.norms), choice_table(advice)]
    parts: dict[str, list[Chart | Table | None]] = {
        "steps": [draw(optimizer) for draw in (timeline.loss, timeline.norms, timeline.rates, timeline.scale)],
        "layers": [heatmap(optimizer.layers), ratios(optimizer.ratios)],
        "thresholds": thresholds if advice.choices else [],
    }
    for title, found in parts.items():
        drawn = [part for part in found if part is not None]
        if drawn:
            about = advice.sentence if title == "thresholds" else ""
            yield Section(of + title if of else title.capitalize(), drawn, about)


def _facts(run: RunData) -> dict[str, str]:
    meta = run.meta
    command = meta.get("command")
    facts = {
        "Run": str(run.path),
        "Began": local_time(meta.get("created")),
        "Command": " ".join(map(str, command)) if isinstance(command, list) else "",
        "Ranks": "" if run.ranks is None else f"{run.ranks.size}",
        "Clipped with": str(meta.get("clip") or ""),
        "Recording": str(meta.get("failure") or ""),
        "Versions": ", ".join(str(part) for part in (meta.get("framework"), f"Python {meta.get('python')}") if part),
        "Page": f"gradclip {__version__}",
    }
    return {name: value for name, value in facts.items() if value}
