"""What watching costs at the start of a script, at its end, and a step: the same with and without it, by turns.

Machines are shared and clocks vary: only differences and ratios within one run mean something.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from torch import nn

import gradclip
from benchmarks.shape_trace import child_environment

__all__ = ["Ends", "StepTimes", "ends", "step_times"]

FIRST = """
import sys, time

sys.first_moment = time.time(), time.process_time()
"""
SCRIPT = """
import os, sys, time
import torch

imported = time.time(), time.process_time()
torch.set_num_threads(1)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range({steps}):
    optimizer.zero_grad()
    model(torch.randn(16, 8)).square().mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
print(*sys.first_moment, *imported, flush=True)
print(sum(os.times()[:4]), flush=True)
"""
STEPS = 300


@dataclass(frozen=True)
class Script:
    """One run of the script, in seconds."""

    before: float
    """Wall time from the start of the command until the script's own interpreter runs."""
    wall: float
    """From there until the script has imported PyTorch."""
    cpu: float
    """CPU time of the same."""
    end: float
    """CPU time, of child processes too, after the script's last line."""


@dataclass(frozen=True)
class Ends:
    """Medians over the pairs, in seconds."""

    start_cpu: float
    """How much more CPU time the watched script's interpreter takes until PyTorch is imported."""
    plain_start_cpu: float
    """What it takes unwatched: on a busy machine both grow."""
    start_wall: float
    command: float
    """How much later that interpreter begins, as ``gradclip run`` starts before it."""
    end: float
    """The CPU time after the last line, watched."""
    plain_end: float
    """The same, not watched."""


def ends(pairs: int = 7) -> Ends:
    """Run a script plainly and under ``gradclip run``, by turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = child_environment(folder, FIRST)
        (folder / "train.py").write_text(SCRIPT.format(steps=STEPS))
        plainly, watched = [], []
        for _ in range(pairs):
            plainly.append(_run([sys.executable, "train.py"], folder, environment))
            watched.append(_run([sys.executable, "-m", "gradclip", "run", "train.py"], folder, environment))
    both = list(zip(plainly, watched, strict=True))
    return Ends(
        median(b.cpu - a.cpu for a, b in both),
        median(a.cpu for a in plainly),
        median(b.wall - a.wall for a, b in both),
        median(b.before - a.before for a, b in both),
        median(b.end for b in watched),
        median(a.end for a in plainly),
    )


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> Script:
    began = time.time()
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    first, first_cpu, imported, imported_cpu, used = map(float, said.split())
    end = usage.ru_utime + usage.ru_stime - used
    return Script(first - began, imported - first, imported_cpu - first_cpu, end)


@dataclass(frozen=True)
class StepTimes:
    """Seconds a training step takes, medians over the rounds: all in all, and the median step of a round."""

    attached: float
    recorded: float
    attached_median: float
    recorded_median: float


def step_times(rounds: int = 9, steps: int = 500) -> StepTimes:
    """Time training steps with an attached clipping, with and without ``gradclip.record`` beside it, by turns.

    Opening and closing the run file is not in it. Handing over what waits is in the whole, not in the median step.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        gradclip.attach(optimizer, gradclip.global_norm(1.0))
        data = torch.randn(16, 64)

        def step() -> None:
            optimizer.zero_grad()
            model(data).square().sum().backward()
            optimizer.step()

        attached, recorded = [], []
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(rounds):
                attached.append(_a_step(step, steps))
                with gradclip.record(model, optimizer, out=folder) as recording:
                    recorded.append(_a_step(step, steps, recording.flush))
        (whole, single), (whole_recorded, single_recorded) = (
            map(median, zip(*each, strict=True)) for each in (attached, recorded)
        )
        return StepTimes(whole, whole_recorded, single, single_recorded)
    finally:
        torch.set_num_threads(threads)


def _a_step(step: Callable[[], object], steps: int, settle: Callable[[], object] = lambda: None) -> tuple[float, float]:
    for _ in range(20):  # the first steps describe what there is
        step()
    settle()
    moments = [time.perf_counter()]
    for _ in range(steps):
        step()
        moments.append(time.perf_counter())
    settle()
    return (time.perf_counter() - moments[0]) / steps, median(b - a for a, b in pairwise(moments))
