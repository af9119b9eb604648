"""What clipping costs on the CPU, beside PyTorch's own function and one read of the gradients, by turns in one process.

    python benchmarks/speed.py            # every case; benchmarks/results/cpu.csv
    python benchmarks/speed.py --quick    # fewer rounds, and the large models in small
    python benchmarks/speed.py --only lstm --csv lstm.csv
    python benchmarks/speed.py --docs     # and put the table into docs/performance.md

Every contender's result is compared with float64 (or :mod:`tests.reference`) before it is timed. Each round times every
contender once, in an order that turns; times are medians over the rounds, ratios are of medians.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from speed_cases import CASES, Case
from tables import PAGE, machine, measured_on, put_into_page, rotated, write_csv

RESULTS = Path(__file__).parent / "results" / "cpu.csv"
WARMUP = 3


@dataclass(frozen=True)
class Row:
    """One contender in one case."""

    case: str
    contender: str
    milliseconds: float
    against: str
    ratio: float
    target: float | None
    read_milliseconds: float
    of_read: float
    norm_error: float | None

    @property
    def verdict(self) -> str:
        """Whether the target was reached."""
        return "" if self.target is None else "yes" if self.ratio <= self.target else "no"


def timed(case: Case, rounds: int) -> dict[str, float]:
    """Return the median time of every contender, and of one read, in milliseconds."""
    calls: dict[str, Callable[[], object]] = {**case.contenders, "read": case.read}
    taken: dict[str, list[float]] = {label: [] for label in calls}
    for number in range(WARMUP + rounds):
        for label in rotated(list(calls), number):
            case.before()
            seconds = _time(calls[label], case.repeats)
            if number >= WARMUP:
                taken[label].append(1e3 * seconds)
    return {label: median(times) for label, times in taken.items()}


def _time(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def rows_of(case: Case, rounds: int) -> list[Row]:
    """Check and time one case."""
    errors = {label: case.check(label) for label in case.contenders}
    times = timed(case, rounds)
    bare = times.get(case.bare, 0.0)
    rows = []
    for label in case.contenders:
        against = min(case.rivals, key=times.__getitem__) if label in case.targets else case.first
        own = times[label] - (bare if label in case.less_bare else 0.0)
        ratio, of_read = own / times[against], own / times["read"]
        rows.append(Row(case.name, label, own, against, ratio, case.targets.get(label), times["read"], of_read, errors[label]))
    return rows


def printed(rows: list[Row], described: dict[str, object]) -> Table:
    """Lay the results out as a table."""
    table = Table(title=measured_on(described), title_justify="left")
    for heading in ("case", "contender"):
        table.add_column(heading)
    for heading in ("ms", "ratio", "target", "reached", "x one read", "norm error"):
        table.add_column(heading, justify="right")
    for before, row in zip([None, *rows], rows, strict=False):
        new = before is None or before.case != row.case
        if new and before is not None:
            table.add_section()
        error = "" if row.norm_error is None else f"{row.norm_error:.0e}"
        target = "" if row.target is None else f"<= {row.target:g}"
        table.add_row(
            row.case if new else "", row.contender, f"{row.milliseconds:.3f}", f"{row.ratio:.3f}", target, row.verdict,
            f"{row.of_read:.2f}", error,
        )  # fmt: skip
    return table


def csv_lines(rows: list[Row]) -> list[dict[str, object]]:
    """Lay the results out for the CSV file."""
    return [{**asdict(row), "reached": row.verdict} for row in rows]


def page_lines(rows: list[Row]) -> list[str]:
    """Lay the results out for the page."""
    lines = [
        "| case | contender | ms | ratio | to reach | times one read | norm error |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        target = "" if row.target is None else f"<= {row.target:g}, {'reached' if row.verdict == 'yes' else 'not reached'}"
        error = "" if row.norm_error is None else f"{row.norm_error:.0e}"
        read = f"{row.of_read:.2f}" if row.of_read < 10 else f"{row.of_read:.0f}"
        lines.append(
            f"| {row.case} | {row.contender} | {row.milliseconds:.3f} | {row.ratio:.2f} | {target} | {read} | {error} |"
        )
    return lines


def main() -> None:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller models")
    parser.add_argument("--only", default="", help="cases whose name holds this word")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of each case")
    parser.add_argument("--threads", type=int, default=0, help="PyTorch's threads, and the kernel's")
    parser.add_argument("--csv", type=Path, default=RESULTS)
    parser.add_argument("--docs", action="store_true", help="put the table into docs/performance.md")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    rows: list[Row] = []
    for name, build in CASES.items():
        if asked.only.lower() in name.lower():
            print(f"{name} ...", flush=True)
            case = build(name, asked.quick)
            rows += rows_of(case, asked.rounds or (7 if asked.quick else 31))
            del case
    if not rows:
        raise SystemExit(f"no case holds {asked.only!r}: {', '.join(CASES)}")
    described = machine()
    Console(width=132).print(printed(rows, described))
    write_csv(asked.csv, csv_lines(rows), described)
    if asked.docs:
        put_into_page(PAGE, "measured", page_lines(rows), described)


if __name__ == "__main__":
    main()
