"""The shape of the package in numbers: how much runs to clip a gradient, how its files hang together, what watching costs.

    python -m benchmarks.shape                       # the table
    python -m benchmarks.shape --fast                # without what is timed
    python -m benchmarks.shape --trace clip          # the files a gradient passes, in their order; or watch
    python -m benchmarks.shape --write               # put both traces into docs/architecture.md

It reports and is no test: a row that misses its bound is marked. Nothing here knows what is inside the package: calls
are followed through its public functions, and files are read as they are found.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.shape_calls import CASES, warm
from benchmarks.shape_source import Source, backend_questions, class_tests, import_cycles, lines, subclasses
from benchmarks.shape_times import STEPS, ends, step_times
from benchmarks.shape_trace import PACKAGE, TRACES

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
AXES = ("Scope", "Threshold", "Rescale", "Nonfinite", "Norm")
CYCLES, TESTS, LINES = 0, 5, 20_300
START, END, RECORDED = 0.015, 0.8, 1.5


@dataclass(frozen=True)
class Row:
    """A number, and where it should be."""

    what: str
    now: str
    bound: str = ""
    holds: bool = True
    where: Sequence[str] = ()
    """What it is made of, for below the table."""


def rows_of(source: Source, chooser: str | None, fast: bool) -> list[Row]:
    """Measure everything, what is timed last."""
    return [*called(source.root), *read(source, chooser), *([] if fast else timed())]


def called(package: Path) -> list[Row]:
    """What runs to clip a model of four tensors, at the third call."""
    rows = []
    for what, (build, most_calls, most_files) in CASES.items():
        counted = warm(build, package)
        now, bound, holds = str(counted.calls), str(most_calls), counted.calls <= most_calls
        if most_files is not None:
            now, bound = f"{now} / {counted.files}", f"{bound} / {most_files}"
            holds = holds and counted.files <= most_files
        rows.append(Row(f"{what}: calls{'' if most_files is None else ' / files'}", now, bound, holds))
    return rows


def read(source: Source, chooser: str | None) -> list[Row]:
    """What stands in the source."""
    seam = source.below("torch", "backends")
    rows = []
    for question, where in backend_questions(seam, chooser).items():
        above = sum(count for path, count in where.items() if path.startswith("torch/"))
        total = sum(where.values())
        rows.append(Row(f"which backend? {question}: torch/ + backends/", f"{above} + {total - above}", where=_places(where)))
    tests = class_tests(source.below("torch"), subclasses(source, AXES))
    count = sum(tests.values())
    rows.append(Row("tests for a class of an axis in torch/", str(count), str(TESTS), count <= TESTS, _places(tests)))
    cycles = import_cycles(source)
    sizes = f": of {', '.join(str(len(cycle)) for cycle in cycles)} files" if cycles else ""
    members = [" ".join(cycle) for cycle in cycles]
    rows.append(Row("import cycles", f"{len(cycles)}{sizes}", str(CYCLES), len(cycles) <= CYCLES, members))
    total = lines(source)
    return [*rows, Row("lines of Python", f"{total:,}", f"{LINES:,}", total <= LINES)]


def timed() -> list[Row]:
    """What watching costs beside the same without it."""
    found, step = ends(), step_times()
    ratio = step.recorded / step.attached
    return [
        Row(
            "a watched script until PyTorch is imported: CPU more",
            f"{1e3 * found.start_cpu:.0f} ms",
            f"{1e3 * START:.0f} ms",
            found.start_cpu <= START,
            [
                f"over {1e3 * found.plain_start_cpu:.0f} ms; {1e3 * found.start_wall:.0f} ms more of wall time, "
                f"and the command takes {1e3 * found.command:.0f} ms before it"
            ],
        ),
        Row(
            "a watched script after its last line, page and all: CPU",
            f"{found.end:.2f} s",
            f"{END} s",
            found.end <= END,
            [f"plain Python takes {found.plain_end:.2f} s; after {STEPS} steps"],
        ),
        Row(
            "a recorded step over an attached one",
            f"{ratio:.2f} x",
            f"{RECORDED} x",
            ratio <= RECORDED,
            [
                f"{1e6 * step.recorded:.0f} us over {1e6 * step.attached:.0f} us; "
                f"the median step {1e6 * step.recorded_median:.0f} us over {1e6 * step.attached_median:.0f} us"
            ],
        ),
    ]


def printed(rows: Sequence[Row], title: str) -> Table:
    """Lay the rows out as a table."""
    table = Table(title=title, title_justify="left")
    table.add_column("what", no_wrap=True)
    for heading in ("now", "bound"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for row in rows:
        table.add_row(row.what, row.now, row.bound, "" if row.holds else "missed")
    return table


def numbered(name: str) -> list[str]:
    """Follow a trace and return its steps, as they stand in the page."""
    follow, told = TRACES[name]
    return [f"{number}. {step}" for number, step in enumerate(told(follow()), 1)]


def chooser_of(source: Source) -> str | None:
    """Find the one file that may ask which backend there is: ``backends/chooser.py``, ``chooser.py``, ``choice.py``."""
    found = [path for path in source.trees if path.startswith(("backends/choos", "backends/choice"))]
    return found[0] if len(found) == 1 else None


def _places(where: Mapping[str, int]) -> list[str]:
    return [", ".join(f"{path} {count}" for path, count in where.items())] if where else []


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table, or a trace."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="leave out what is timed")
    parser.add_argument(
        "--chooser", help="the file that may ask which backend there is (default: backends/choos*.py or choice*.py)"
    )
    parser.add_argument("--trace", choices=TRACES, help="print the files that are entered, in their order")
    parser.add_argument("--write", action="store_true", help=f"put the traces into docs/{PAGE.name}")
    asked = parser.parse_args(arguments)
    if asked.write:
        from benchmarks.tables import put_into_page

        for name in [asked.trace] if asked.trace else TRACES:
            put_into_page(PAGE, f"trace: {name}", numbered(name))
    elif asked.trace:
        print("\n".join(numbered(asked.trace)))
    else:
        source = Source(PACKAGE)
        chooser = asked.chooser or chooser_of(source)
        if chooser is not None and chooser not in source.trees:
            parser.error(f"there is no {chooser} in {PACKAGE}: write it as torch/plan.py")
        rows = rows_of(source, chooser, asked.fast)
        console = Console(width=132)
        console.print(
            printed(rows, f"Python {platform.python_version()}, torch {torch.__version__}; chooser: {chooser or 'none'}")
        )
        for row in rows:
            for line in row.where:
                console.print(f"{row.what}: {line}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
