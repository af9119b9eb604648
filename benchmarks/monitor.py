"""What watching a training step costs: the plain step and the watched one by turns in one process.

    python benchmarks/monitor.py                     # benchmarks/results/monitor.csv
    python benchmarks/monitor.py --only lstm --rounds 20

Beside them the logging that people write: ``{n: p.grad.norm().item() for n, p in model.named_parameters()}`` at every step.
Each round times ten steps of each, one after the other, in an order that turns: the weights are copied at one step in ten,
so its share is in. The ratios are of the medians of the rounds.
"""

from __future__ import annotations

import argparse
import csv
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn

from gradclip.labs.charlm import BATCH, LENGTH, CharModel, batch, encoded
from gradclip.watch.api import record

RESULTS = Path(__file__).parent / "results" / "monitor.csv"
STEPS = 10


@dataclass(frozen=True)
class Workload:
    """A model and its loss."""

    name: str
    model: nn.Module
    loss: Callable[[nn.Module], Tensor]
    clip: float | None

    def step(self, optimizer: torch.optim.Optimizer, log: bool) -> None:
        """One training step, as people write it."""
        optimizer.zero_grad()
        self.loss(self.model).backward()
        if log:
            _ = {name: p.grad.norm().item() for name, p in self.model.named_parameters() if p.grad is not None}
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        optimizer.step()


def char_lstm(clip: float | None) -> Workload:
    """The LSTM of `gradclip lab charlm`: 128 units, 32 windows of 64 characters."""
    data, generator = encoded(), torch.Generator().manual_seed(0)

    def loss(model: nn.Module) -> Tensor:
        characters, following = batch(data, generator)
        return F.cross_entropy(model(characters).flatten(0, 1), following.flatten())

    name = f"lstm {BATCH}x{LENGTH}, {'clipped' if clip else 'not clipped'}"
    return Workload(name, CharModel("LSTM"), loss, clip)


def many_tensors(count: int, width: int, rows: int) -> Workload:
    """Residual layers of one weight and one bias each: as many tensors as a transformer has, or ten times that."""
    layers = nn.ModuleList(nn.Linear(width, width) for _ in range(count // 2))
    x = torch.randn(rows, width)

    def loss(model: nn.Module) -> Tensor:
        h = x
        for layer in layers:
            h = h + 0.1 * torch.tanh(layer(h))
        return h.square().mean()

    return Workload(f"{count} tensors of width {width}, {rows} rows", layers, loss, 1.0)


def workloads() -> Iterator[Workload]:
    """The rows of the table."""
    yield char_lstm(None)
    yield char_lstm(1.0)
    yield many_tensors(148, 256, 256)
    yield many_tensors(2000, 64, 256)


def measure(work: Workload, rounds: int, folder: Path) -> dict[str, float]:
    """Return the median seconds of a step: plain, watched, logged."""
    optimizer = torch.optim.SGD(work.model.parameters(), lr=1e-3)
    arms = ["plain", "watched", "logged"]
    times: dict[str, list[float]] = {arm: [] for arm in arms}
    for i in range(rounds + 1):
        for arm in arms[i % 3 :] + arms[: i % 3]:
            spent = _timed(work, optimizer, arm, folder)
            if i:  # the first round warms up
                times[arm].append(spent)
    return {arm: median(spent) for arm, spent in times.items()}


def _timed(work: Workload, optimizer: torch.optim.Optimizer, arm: str, folder: Path) -> float:
    watching: AbstractContextManager[object] = record(work.model, optimizer, out=folder) if arm == "watched" else nullcontext()
    with watching:
        work.step(optimizer, log=arm == "logged")  # opens the file, writes the names
        begin = time.perf_counter()
        for _ in range(STEPS):
            work.step(optimizer, log=arm == "logged")
        return (time.perf_counter() - begin) / STEPS


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", default="", help="workloads whose name holds this")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = []
    for work in workloads():
        if options.only in work.name:
            with tempfile.TemporaryDirectory() as folder:
                took = measure(work, options.rounds, Path(folder))
            rows.append(_row(work.name, took, options.threads))
            print(rows[-1], flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _row(name: str, took: dict[str, float], threads: int) -> dict[str, object]:
    milliseconds = {f"{arm}_ms": round(1e3 * seconds, 3) for arm, seconds in took.items()}
    ratios = {f"{arm}_over_plain": round(took[arm] / took["plain"], 4) for arm in ("watched", "logged")}
    return {
        "workload": name, **milliseconds, **ratios,
        "threads": threads, "torch": torch.__version__, "machine": platform.processor() or platform.machine(),
    }  # fmt: skip


if __name__ == "__main__":
    main()
