"""Run the arms of a lab, side by side in processes of their own, and say how far each one is."""

from __future__ import annotations

import math
import multiprocessing
import os
import queue
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gradclip import record
from gradclip.diagnosis.readings.run_data import read_run
from gradclip.errors import NonFiniteGradientError
from gradclip.labs import load
from gradclip.labs.lab import Arm, Curves, Lab
from gradclip.runs import Run, RunFileError

__all__ = ["Tick", "run_arms", "run_path"]

MOST_ROWS = 500
"""Of the norms of single tensors; the steps themselves are all kept."""
LONGEST = 100
"""Letters of an arm in a file's name, which file systems limit."""
_EVERY = 0.1  # seconds between two messages of one arm: a terminal is not read faster than that


@dataclass(frozen=True)
class Tick:
    """How far an arm is: its place in the list of arms, and its last step."""

    arm: int
    step: int
    loss: float
    norm: float
    done: bool = False


Report = Callable[[Tick], None]


def run_arms(
    lab: Lab, arms: Sequence[Arm], *, steps: int, seed: int, jobs: int | None = None, report: Report, out: Path
) -> list[Curves]:
    """Train every arm on one thread each and return their curves in the order of the arms.

    The numbers do not depend on ``jobs``.

    Args:
        lab: the experiment.
        arms: what to run, usually ``lab.arms_with(...)``.
        steps: updates per arm.
        seed: of weights and batches, the same for all arms.
        jobs: processes; by default one a core and no more than arms. 1 runs everything in this process.
        report: is told how far each arm is, at most ten times a second.
        out: the folder for a run file of each arm, from which its norms are then read.

    Raises:
        RunFileError: a run file could not be written.
    """
    jobs = min(len(arms), jobs or os.cpu_count() or 1)
    if jobs == 1:
        return [_run_arm(lab, i, arm, steps, seed, report, out) for i, arm in enumerate(arms)]
    return _run_in_processes(lab, arms, steps, seed, jobs, report, out)


def run_path(folder: Path, lab: str, place: int, arm: Arm) -> Path:
    """Where the run of a lab's arm is kept: the same name each time, so that the lab's next run takes its place.

    >>> run_path(Path("runs"), "lstm", 1, Arm("LSTM", 0.1, "global_norm:20.0")).as_posix()
    'runs/lab-lstm-2-LSTM-at-lr-0.1-global_norm-20.0.gradclip'
    """
    words = "".join(letter if letter.isalnum() or letter in "._=" else " " for letter in arm.name).split()
    return folder / f"lab-{lab}-{place + 1}-{'-'.join(words)[:LONGEST]}.gradclip"


def _run_arm(lab: Lab, place: int, arm: Arm, steps: int, seed: int, report: Report, out: Path) -> Curves:
    """Train an arm while it is recorded as any script would be, and read the norms from its run file."""
    curves, path = Curves(arm), run_path(out, lab.name, place, arm)
    every = math.ceil(steps / MOST_ROWS)
    with record(out=path, every=every, title=arm.name) as recording, _own_randomness_and_thread():
        told = 0.0
        for loss in _losses(lab, curves, steps, seed):
            if time.monotonic() - told >= _EVERY:
                told = time.monotonic()
                report(Tick(place, len(curves.losses), loss, recording.norm))
    report(Tick(place, len(curves.losses), curves.losses[-1] if curves.losses else math.nan, recording.norm, done=True))
    return _read(curves, path)


def _losses(lab: Lab, curves: Curves, steps: int, seed: int) -> Iterator[float]:
    """Train an arm step by step; it stops where its loss is no longer a finite number, or its clipper says so."""
    try:
        for values in lab.train(curves.arm, steps, seed):
            also = dict(values)
            curves.losses.append(loss := also.pop("loss"))
            for name, value in also.items():
                curves.also.setdefault(name, []).append(value)
            yield loss
            if not math.isfinite(loss):
                curves.note = f"diverged: the loss is {loss} at step {len(curves.losses)}"
                return
    except NonFiniteGradientError as error:
        curves.note = f"stopped: {error}"


def _read(curves: Curves, path: Path) -> Curves:
    """Add the norms, which the watching has measured, of the arm's first optimizer."""
    with Run.open(path) as run:
        (optimizer, *_) = read_run(run).optimizers
    steps = optimizer.steps
    if len(steps) < len(curves.losses):
        raise RunFileError(f"{path} holds {len(steps)} of {len(curves.losses)} steps: it could not be written to the end")
    return replace(
        curves,
        norms=steps.norm.tolist(),
        clipped_norms=steps.clipped_norm.tolist(),
        limits=np.where(steps.missing["threshold"], math.inf, steps.threshold).tolist(),
        clipped=steps.clipped.tolist(),
        path=path,
        optimizer=optimizer,
    )


@contextmanager
def _own_randomness_and_thread() -> Iterator[None]:
    """One thread, so that arms side by side do not slow each other and sums come out the same on every machine of a kind.

    Skipped steps are no warnings: the table says how many.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "gradclip skipped a step")
            yield
    finally:
        torch.set_num_threads(threads)


# --- processes --------------------------------------------------------------------------------------------------------

_worker: dict[str, Any] = {}


def _run_in_processes(
    lab: Lab, arms: Sequence[Arm], steps: int, seed: int, jobs: int, report: Report, out: Path
) -> list[Curves]:
    context = multiprocessing.get_context("spawn")  # a fork of a process that has loaded torch may hang
    ticks, stop = context.Queue(), context.Event()
    with ProcessPoolExecutor(jobs, context, _start_worker, (ticks, stop)) as pool:
        futures = [pool.submit(_work, lab.name, i, arm, steps, seed, out) for i, arm in enumerate(arms)]
        try:
            pending = set(futures)
            while pending:
                done, pending = wait(pending, _EVERY, FIRST_EXCEPTION)
                _pass_on(ticks, report)
                for future in done:
                    future.result()  # an error in one arm ends the others
            return [future.result() for future in futures]
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _pass_on(ticks: Any, report: Report) -> None:
    while True:
        try:
            report(ticks.get_nowait())
        except queue.Empty:
            return


def _start_worker(ticks: Any, stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    _worker.update(ticks=ticks, stop=stop)


def _work(name: str, place: int, arm: Arm, steps: int, seed: int, out: Path) -> Curves:
    def report(tick: Tick) -> None:
        if _worker["stop"].is_set():
            raise KeyboardInterrupt  # in the parent: this process does not hear it
        _worker["ticks"].put(tick)

    return _run_arm(load(name), place, arm, steps, seed, report, out)
