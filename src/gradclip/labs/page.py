"""The page of a lab: its verdict, its table of arms, and its curves."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from importlib.metadata import version

from gradclip import __version__
from gradclip.labs.lab import Arm, Curves, Lab, number
from gradclip.labs.pictures import middle
from gradclip.labs.verdict import verdict
from gradclip.report.charts import COLOURS, MUTED, Chart, Line, curves
from gradclip.report.page import Page, Table
from gradclip.report.timeline import norms

__all__ = ["COLUMNS", "page", "summary"]

MOST_NAMES = 4
"""Run files that are named one by one."""
COLUMNS = ("arm", "{score}", "median norm", "largest norm", "largest after", "steps clipped")


def page(lab: Lab, runs: Sequence[Curves], *, command: str, seed: int) -> Page:
    """Lay out what the runs of a lab showed."""
    each = "runs of one number" if any(run.arm.run for run in runs) else "every arm; one run each"
    facts = {
        "Again": command,
        "Seed": f"{seed}, the same weights and batches for {each}",
        "Versions": f"gradclip {__version__}, torch {version('torch')}, Python {platform.python_version()}",
    }
    facts |= _files(lab, runs)
    return Page(
        lab.title, verdict(lab, runs), about=lab.about, tables=[summary(lab, runs)], charts=_charts(lab, runs), facts=facts
    )  # fmt: skip


def _files(lab: Lab, runs: Sequence[Curves]) -> dict[str, str]:
    """Where the runs are kept: their names, or the pattern of many."""
    paths = [run.path for run in runs if run.path]
    if not paths:
        return {}
    if len(paths) > MOST_NAMES:
        return {"Run files": f"{paths[0].parent / f'lab-{lab.name}-*.gradclip'}, {len(paths)} of them"}
    return {"Run files": ", ".join(map(str, paths))}


def summary(lab: Lab, runs: Sequence[Curves]) -> Table:
    """One row per arm: its score, what the lab adds, its norms, and how often it was clipped."""
    if lab.table:
        return lab.table(runs)
    arm, score, *measured = COLUMNS
    columns = (arm, score.format(score=lab.score_name), *lab.columns, *measured)
    notes = [f"{run.arm.name}: {run.note}." for run in runs if run.note]
    return Table("One row per arm", columns, [_row(lab, run) for run in runs], frozenset(range(1, len(columns))), notes)


def _row(lab: Lab, run: Curves) -> tuple[str, ...]:
    return (
        run.arm.name,
        number(lab.score(run)),
        *(cell(run) for cell in lab.columns.values()),
        number(middle(run.norms)),
        number(_largest(run.norms)),
        number(_largest(run.clipped_norms)),
        f"{run.share_clipped:.1%}" if run.arm.clips else "–",
    )


def _charts(lab: Lab, runs: Sequence[Curves]) -> list[Chart]:
    shown = [run for run in runs if lab.detailed(run.arm)]
    return [*lab.pictures(runs), *(_curves(lab, shown) if shown else ())]


def _curves(lab: Lab, runs: Sequence[Curves]) -> list[Chart]:
    colours = _colours(runs)
    drawn = [_losses(lab, runs, colours), *(_norms(run, runs, colours[run.arm]) for run in runs)]
    return [chart for chart in drawn if chart is not None]


def _colours(runs: Sequence[Curves]) -> dict[Arm, str]:
    """One for each setting; where one setting is clipped in several ways, one for each of them."""
    settings = list(dict.fromkeys(run.arm.setting for run in runs))
    if _one_way(runs):
        return {run.arm: COLOURS[settings.index(run.arm.setting) % len(COLOURS)] for run in runs}
    clipped = [run.arm for run in runs if run.arm.clips]
    return {run.arm: COLOURS[clipped.index(run.arm) % len(COLOURS)] if run.arm.clips else MUTED for run in runs}


def _one_way(runs: Sequence[Curves]) -> bool:
    """Whether no setting has more than one arm that clips."""
    return len({run.arm.setting for run in runs if run.arm.clips}) == sum(run.arm.clips for run in runs)


def _losses(lab: Lab, runs: Sequence[Curves], colours: dict[Arm, str]) -> Chart:
    lines = [
        Line(run.arm.name, run.losses, colours[run.arm], dashed=not run.arm.clips, steps=range(len(run.losses))) for run in runs
    ]
    window = max(1, max(len(run.losses) for run in runs) // 20)
    each = "one colour for each setting" if _one_way(runs) else "one colour for each way to clip"
    see = (
        f"Solid with clipping, dashed without, {each}; lower is better. "
        f"The lines are means of {window} steps, the steps themselves stand behind them."
    )
    return curves("Loss", see, lines, y=lab.loss_name, smooth=window)


def _norms(run: Curves, runs: Sequence[Curves], colour: str) -> Chart | None:
    same = [norm for r in runs if r.arm.setting == run.arm.setting and not r.note for norm in r.norms]
    return norms(run.optimizer, f"Gradient norm: {run.arm.name}", colour, beside=same) if run.optimizer else None


def _largest(norms: Sequence[float]) -> float:
    return max((norm for norm in norms if not math.isnan(norm)), default=math.nan)
