"""What watching a training step costs: the plain step, gradclip's recording, and what people write, by turns in one process.

    python benchmarks/monitor.py                     # benchmarks/results/monitor.csv
    python benchmarks/monitor.py --only LSTM --rounds 20
    python benchmarks/monitor.py --quick             # a few rounds of tiny models
    python benchmarks/monitor.py --docs              # and put the table into docs/performance.md

Everybody's numbers are compared with float64 before anything is timed. Each round times a block of at least ten steps and
half a second of each contender, one after the other, in an order that turns (wandb, whose service works on after its turn, has
rounds of its own with the plain step and naive logging); opening and closing files is not in it, handing
over what waits is. Times are medians over the rounds, ratios are of medians. Lightning and wandb take part where they are
installed (``pip install "gradclip[bench]"``).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from monitor_contenders import LEAVE_WORK, LOGGING, PLAIN, Contender, contenders
from monitor_models import BLOCK, MODELS, QUICK, Job
from rich.console import Console
from rich.table import Table
from tables import PAGE, machine, measured_on, put_into_page, rotated, write_csv
from torch import Tensor

RESULTS = Path(__file__).parent / "results" / "monitor.csv"
HEADINGS = ("model", "contender", "ms a step", "adds, ms", "x plain step", "x logging", "norm error")
WARMUP = 1


@dataclass(frozen=True)
class Row:
    """One contender on one model."""

    model: str
    contender: str
    milliseconds: float
    adds: float
    """Milliseconds more than the plain step."""
    over_plain: float
    over_logging: float
    norm_error: float | None
    steps: int
    rounds: int

    def cells(self) -> list[str]:
        """Return the row as it is shown."""
        error = "" if self.norm_error is None else f"{self.norm_error:.0e}"
        added = "" if self.contender == PLAIN else f"{self.adds:+.2f}"
        ratios = [f"{ratio:.3f}" for ratio in (self.over_plain, self.over_logging)]
        return [self.model, self.contender, f"{self.milliseconds:.2f}", added, *ratios, error]


def rows_of(name: str, job: Job, taking_part: Mapping[str, Contender], rounds: int, steps: int) -> list[Row]:
    """Check and time everybody on one model; last, in rounds of their own, those who leave a process at work behind them."""
    quiet = {label: contender for label, contender in taking_part.items() if label not in LEAVE_WORK}
    rows = _side_by_side(name, job, quiet, rounds, steps)
    for label in taking_part.keys() - quiet.keys():
        beside = {each: taking_part[each] for each in (PLAIN, LOGGING, label)}
        rows += [row for row in _side_by_side(name, job, beside, rounds, steps) if row.contender == label]
    return rows


def _side_by_side(name: str, job: Job, taking_part: Mapping[str, Contender], rounds: int, steps: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        errors = {label: checked(label, contender, job, Path(folder)) for label, contender in taking_part.items()}
        times = timed(job, taking_part, rounds, steps, Path(folder))
    plain, logging = times[PLAIN], times[LOGGING]
    return [
        Row(name, label, took, took - plain, took / plain, took / logging, errors[label], steps, rounds)
        for label, took in times.items()
    ]


def checked(label: str, contender: Contender, job: Job, folder: Path) -> float | None:
    """Compare what a contender saw at a step with float64, and return its largest error."""
    with contender(job, folder) as watcher:
        exact: dict[str, Tensor] = {}
        job.step(lambda: (watcher.look(), exact.update(job.exact())))
        try:
            return watcher.check(exact)
        except AssertionError as error:
            raise AssertionError(f"{label}: {error}") from error


def timed(job: Job, taking_part: Mapping[str, Contender], rounds: int, steps: int, folder: Path) -> dict[str, float]:
    """Return the median time of a step with every contender, in milliseconds."""
    taken: dict[str, list[float]] = {label: [] for label in taking_part}
    for number in range(WARMUP + rounds):
        for label in rotated(list(taking_part), number):
            seconds = block(job, taking_part[label], steps, folder)
            if number >= WARMUP:
                taken[label].append(1e3 * seconds / steps)
    return {label: median(times) for label, times in taken.items()}


def block(job: Job, contender: Contender, steps: int, folder: Path) -> float:
    """Return the seconds that some steps take, and the handing over of what they left."""
    with contender(job, folder) as watcher:
        job.step(watcher.look)  # opens the file, writes the names
        begin = time.perf_counter()
        for _ in range(steps):
            job.step(watcher.look)
        watcher.settle()
        return time.perf_counter() - begin


def printed(rows: Sequence[Row], described: Mapping[str, object]) -> Table:
    """Lay the results out as a table."""
    table = Table(title=measured_on(described), title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in HEADINGS[:2] else "right")
    for before, row in zip([None, *rows], rows, strict=False):
        new = before is None or before.model != row.model
        if new and before is not None:
            table.add_section()
        table.add_row(*(row.cells() if new else ["", *row.cells()[1:]]))
    return table


def page_lines(rows: Sequence[Row]) -> list[str]:
    """Lay the results out for the page."""
    lines = [f"| {' | '.join(HEADINGS)} |", "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    return lines + [f"| {' | '.join(row.cells())} |" for row in rows]


def measure(models: Mapping[str, Callable[[], Job]], rounds: int, quick: bool) -> list[Row]:
    """Measure everybody on some models."""
    taking_part, rows = contenders(), []
    for name, build in models.items():
        print(f"{name} ...", flush=True)
        job = build()
        rows += rows_of(name, job, taking_part, rounds, BLOCK if quick else job.block())
    return rows


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few rounds of tiny models")
    parser.add_argument("--only", default="", help="models whose name holds this")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of each model (20, or 2 with --quick)")
    parser.add_argument("--threads", type=int, default=0, help="PyTorch's threads, and the kernel's")
    parser.add_argument("--csv", type=Path, help=f"where results go (default {RESULTS.name}; quick ones are not kept)")
    parser.add_argument("--docs", action="store_true", help="put the table into docs/performance.md")
    asked = parser.parse_args(arguments)
    if asked.threads:
        torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    models = {n: build for n, build in (QUICK if asked.quick else MODELS).items() if asked.only.lower() in n.lower()}
    if not models:
        raise SystemExit(f"no model holds {asked.only!r}: {', '.join(MODELS)}")
    rows, described = measure(models, asked.rounds or (2 if asked.quick else 20), asked.quick), machine()
    Console(width=132).print(printed(rows, described))
    path = asked.csv or (None if asked.quick else RESULTS)
    if path is not None:
        write_csv(path, [asdict(row) for row in rows], described)
    if asked.docs:
        put_into_page(PAGE, "watched", page_lines(rows), described)
    return rows


if __name__ == "__main__":
    main()
