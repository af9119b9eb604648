"""What clipping costs on a GPU, beside PyTorch's own function and a copy of the same bytes.

    python benchmarks/gpu.py             # every case; benchmarks/results/gpu.csv
    python benchmarks/gpu.py --check     # first the tests of tests/gpu, on this GPU
    python benchmarks/gpu.py --docs      # and put the table into docs/performance.md
    python benchmarks/gpu.py --tune      # only the measuring pass, for other sizes of tiles and chunks

Every contender's result is compared with float64 before it is timed. Each round times every contender once, in an order that
turns. *ms* is the time on the device, between two events, with work queued before it so that the host is ahead; *wall ms* is
from the call on an idle device until it is done, with what the host does. Times are medians. One read is half of what
``dst.copy_(src)`` of the same bytes takes.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from gpu_cases import CASES, MANY, WARMUP, Work, contenders_of
from tables import PAGE, machine, measured_on, put_into_page, rotated, write_csv

from gradclip.backends import chunks, gpu

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "gpu.csv"
AHEAD = 40_000_000
"""Clock cycles that the device is kept busy for while the host queues a contender's work: some 20 ms."""


@dataclass(frozen=True)
class Row:
    """One contender in one case."""

    case: str
    contender: str
    milliseconds: float
    wall_milliseconds: float | None
    torch_ratio: float | None
    torch_wall_ratio: float | None
    copy_share: float | None
    reads: float
    target: str
    reached: str


def on_device(call: Callable[[], object]) -> float:
    """Return the milliseconds that the device is busy with a call."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(AHEAD)
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def on_wall(call: Callable[[], object]) -> float:
    """Return the milliseconds from a call until it is done."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def timed(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float]]:
    """Return the median times of each, on the device and on the wall."""
    taken: dict[str, list[tuple[float, float]]] = {label: [] for label in calls}
    for number in range(WARMUP + rounds):
        for label in rotated(list(calls), number):
            both = on_device(calls[label]), on_wall(calls[label])
            if number >= WARMUP:
                taken[label].append(both)
    return {label: (median(t for t, _ in times), median(t for _, t in times)) for label, times in taken.items()}


def rows_of(name: str, work: Work, rounds: int) -> list[Row]:
    """Check and time one case."""
    calls = contenders_of(work)
    for label, call in calls.items():
        work.check(call, label)
    work.limit = work.norm
    work.put_back()
    source = torch.empty(work.bytes, dtype=torch.uint8, device="cuda")
    copy = partial(torch.empty_like(source).copy_, source)
    times = timed({**calls, "copy": copy}, rounds)
    read = times.pop("copy")[0] / 2
    rows = [Row(name, "one read (half a copy)", read, None, None, None, 1.0, 1.0, "", "")]
    for label, (ms, wall) in times.items():
        base = times.get("torch, clipping" if ", clipping" in label else "torch, nothing to clip")
        target, reached = judged(name, label, read / ms, base[1] / wall if base else 0.0)
        share = read / ms if label == "measure only" else None
        ratios = (base[0] / ms, base[1] / wall) if base and label != "measure only" else (None, None)
        rows.append(Row(name, label, ms, wall, *ratios, share, ms / read, target, reached))
    return rows


def judged(name: str, label: str, share: float, faster: float) -> tuple[str, str]:
    """Return what was to be reached, and whether it was; only large work is to run at the speed of memory."""
    large = name != MANY
    if label == "measure only" and large:
        return ">= 85% of copy bandwidth", "yes" if share >= 0.85 else "no"
    if label == "drop-in, nothing to clip" and large:
        return "<= 1.1 reads", "yes" if 1 / share <= 1.1 else "no"
    if label.startswith("drop-in, ") and not large:
        return ">= 3 times torch's speed", "yes" if faster >= 3 else "no"
    return "", ""


def page_lines(rows: Sequence[Row]) -> list[str]:
    """Lay the results out for the page, and for the terminal."""
    lines = [
        "| case | contender | ms | wall ms | times torch's speed | on the wall | of copy bandwidth | reads | to reach |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        numbers = [(row.milliseconds, ".4f"), (row.wall_milliseconds, ".4f"), (row.torch_ratio, ".2f")]
        numbers += [(row.torch_wall_ratio, ".2f"), (row.copy_share, ".0%"), (row.reads, ".2f")]
        told = ["" if value is None else f"{value:{form}}" for value, form in numbers]
        target = f"{row.target}: {'reached' if row.reached == 'yes' else 'not reached'}" if row.target else ""
        lines.append(f"| {' | '.join([row.case, row.contender, *told, target])} |")
    return lines


def tune(rounds: int) -> None:
    """Time the measuring pass for other sizes of tiles and chunks."""
    for name, build in CASES.items():
        work = Work(*build())
        for tile, tiles, warps in itertools.product((2048, 4096, 8192), (1, 2, 4, 8, 16), (4, 8, 16)):
            chunks.TILE = gpu.TILE = tile
            chunks.CHUNK = tile * tiles
            gpu._LAUNCH["num_warps"] = warps
            chunks._layouts._made.clear()
            call = partial(gpu.Gpu.take(work.grads())[0].norms, 2.0)
            for _ in range(WARMUP):
                call()
            ms = median(on_device(call) for _ in range(rounds))
            print(f"{name}: tile {tile}, {tiles} tiles a chunk, {warps} warps: {ms:.4f} ms, {work.bytes / ms / 1e6:.0f} GB/s")


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--only", default="", help="cases whose name holds this word")
    parser.add_argument("--csv", type=Path, default=RESULTS)
    for flag, told in (
        ("check", "run tests/gpu first"),
        ("docs", "put the table into docs/performance.md"),
        ("tune", "try sizes"),
    ):
        parser.add_argument(f"--{flag}", action="store_true", help=told)
    asked = parser.parse_args()
    if not torch.cuda.is_available() or not gpu.on_device(torch.empty(0, device="cuda")):
        print("This benchmark needs a GPU that PyTorch sees, and Triton.")
        return 1
    if asked.check:
        tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu"]
        if subprocess.run(tests, cwd=ROOT, check=False).returncode:
            return 1
    torch.manual_seed(0)
    if asked.tune:
        tune(asked.rounds)
        return 0
    rows: list[Row] = []
    for name, build in CASES.items():
        if asked.only.lower() in name.lower():
            print(f"{name} ...", flush=True)
            rows += rows_of(name, Work(*build()), asked.rounds)
    described = {"gpu": torch.cuda.get_device_name(), "triton": importlib.import_module("triton").__version__, **machine()}
    print("\n".join([measured_on(described), *page_lines(rows)]))
    write_csv(asked.csv, [asdict(row) for row in rows], described)
    if asked.docs:
        put_into_page(PAGE, "measured on a GPU", page_lines(rows), described)
    return 0


if __name__ == "__main__":
    sys.exit(main())
