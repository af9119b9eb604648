"""Run the tournament: ``python -m benchmarks.thresholds``; stop it and run it again, and it goes on where it was.

``--quick`` runs two seeds of six methods on the shorter tasks; the whole takes about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import math
import os
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.thresholds.methods import METHODS, QUICK
from benchmarks.thresholds.results import Row, bests, cell, ratio, read, standings, write_row

RESULTS = Path(__file__).parents[1] / "results" / "thresholds.csv"
QUICK_TASKS = ("char RNN, SGD 4", "char LSTM, Adam 0.01", "deep MLP, SGD 0.05", "MLP, SGD 0.1", "cliff, SGD", "quartic, SGD")


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer tasks, methods and seeds")
    parser.add_argument("--seeds", type=int, help="seeds a task (3, or 2 with --quick)")
    parser.add_argument("--csv", type=Path, help=f"where runs are kept (default {RESULTS.name}; quick runs are not kept)")
    parser.add_argument("--page", type=Path, help="also write an HTML page here")
    parser.add_argument("--docs", action="store_true", help="also put the tables into docs/thresholds.md")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args(arguments)
    path = chosen.csv or (None if chosen.quick else RESULTS)
    rows = _run(chosen.quick, chosen.seeds or (2 if chosen.quick else 3), chosen.jobs, path)
    _print(rows)
    if chosen.page is not None:
        from benchmarks.thresholds.page import write_page

        Console().print(f"Page: {write_page(rows, chosen.page)}", soft_wrap=True)
    if chosen.docs:
        from benchmarks.thresholds.docs import write_docs

        write_docs(rows)
    return rows


def _run(quick: bool, seeds: int, jobs: int, path: Path | None) -> list[Row]:
    from benchmarks.thresholds.tasks import TASKS

    tasks = [task.name for task in TASKS if not quick or task.name in QUICK_TASKS]
    methods = list(QUICK if quick else METHODS)
    wanted = [(task, method, seed) for seed in range(seeds) for task in tasks for method in methods]
    rows = [] if path is None else read(path)
    done = {(row.task, row.method, row.seed) for row in rows}
    missing = [one for one in wanted if one not in done]
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_quiet) as pool:
        futures = [pool.submit(_one, *one) for one in missing]
        for future in track(as_completed(futures), "tournament", total=len(futures), console=Console(stderr=True)):
            rows.append(future.result())
            if path is not None:
                write_row(path, rows[-1])
    order = {one: i for i, one in enumerate(wanted)}
    return sorted((r for r in rows if (r.task, r.method, r.seed) in order), key=lambda r: order[r.task, r.method, r.seed])


def _quiet() -> None:
    import torch

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "gradclip skipped a step")


def _one(task: str, method: str, seed: int) -> Row:
    import gradclip
    from benchmarks.thresholds.tasks import TASKS

    began = time.perf_counter()
    found = next(each for each in TASKS if each.name == task).run(gradclip.parse(METHODS[method]), seed)
    return Row(task, method, seed, found.metric, found.clipped, time.perf_counter() - began)


def _print(rows: Sequence[Row]) -> None:
    out = Console(width=None if Console().is_terminal else 160)
    best = bests(rows)
    shown = [s.method for s in standings(rows) if not s.method.startswith("fixed")]
    table = Table("task", "best fixed", *shown, title="metric as a multiple of the best fixed threshold's")
    for task, (method, value) in best.items():
        ratios = [_times(ratio(rows, task, name, value), cell(rows, task, name)) for name in shown]
        table.add_row(task, f"{value:.3g} ({method.removeprefix('fixed ')})", *ratios)
    out.print(table)
    summary = Table("method", "mean regret", "worst", "within 5 %", "diverged runs", title="over all tasks")
    for s in standings(rows):
        regret = f"{math.expm1(s.regret):.1%}"
        summary.add_row(s.method, regret, f"{s.worst:.2f}x", f"{s.within} of {s.tasks}", str(s.diverged))
    out.print(summary)


def _times(times: float, value: float) -> str:
    return f"{times:.2f}" if math.isfinite(value) else "inf"
