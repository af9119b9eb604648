"""What the speed benchmarks share: turns, a description of the machine, CSV, and tables between the marks of a page."""

from __future__ import annotations

import csv
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from gradclip.backends import cpu

__all__ = ["PAGE", "machine", "measured_on", "put_into_page", "rotated", "write_csv"]

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def machine() -> dict[str, object]:
    """Describe what this was measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        model = next((line.split(": ")[1] for line in info.read_text().splitlines() if line.startswith("model name")), model)
    return {
        "cpu": model,
        "threads": torch.get_num_threads(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "kernel": cpu.enabled(),
    }


def measured_on(described: Mapping[str, object]) -> str:
    """Say the machine in a line."""
    return ", ".join(f"{key} {value}" for key, value in described.items())


def rotated(labels: Sequence[str], number: int) -> list[str]:
    """Return who comes after whom in a round; the first of one round is the last of the next."""
    start = number % len(labels)
    return [*labels[start:], *labels[:start]]


def write_csv(path: Path, lines: Sequence[Mapping[str, object]], described: Mapping[str, object]) -> None:
    """Write one line for each contender, with the machine in every line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = [{**_rounded(line), **described} for line in lines]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rounded[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rounded)


def put_into_page(page: Path, mark: str, lines: Sequence[str], described: Mapping[str, object] | None = None) -> None:
    """Replace what is between the two marks of a page, ``<!-- mark -->`` and ``<!-- /mark -->``, by a table.

    Args:
        page: the page.
        mark: which table of the page.
        lines: the table.
        described: the machine, where times were measured.

    Raises:
        ValueError: the page does not have both marks once.
    """
    begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    text = page.read_text()
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{page} needs a line {begin.strip()} and a line {end}, once each")
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    where = [f"Measured on {measured_on(described)}.\n"] if described else []
    page.write_text(head + begin + "\n".join([*where, *lines]) + f"\n{end}{tail}")


def _rounded(values: Mapping[str, object]) -> dict[str, object]:
    return {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in values.items()}
