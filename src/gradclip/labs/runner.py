"""Run the arms of a lab, side by side in processes of their own, and say how far each one is."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradclip.errors import NonFiniteGradientError
from gradclip.labs import load
from gradclip.labs.lab import Arm, Curves, Lab
from gradclip.labs.recording import Recording, run_path
from gradclip.result import ClipResult

__all__ = ["Tick", "run_arms"]

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


class _StoppedError(Exception):
    """The user has interrupted the experiment."""


def run_arms(
    lab: Lab, arms: Sequence[Arm], *, steps: int, seed: int, jobs: int | None = None, report: Report, out: Path | None = None
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
        out: a folder for a run file of each arm, from which the curves are then read; none is written without it.
    """
    jobs = min(len(arms), jobs or os.cpu_count() or 1)
    if jobs == 1:
        return [_run_arm(lab, i, arm, steps, seed, report, out) for i, arm in enumerate(arms)]
    return _run_in_processes(lab, arms, steps, seed, jobs, report, out)


def _run_arm(lab: Lab, place: int, arm: Arm, steps: int, seed: int, report: Report, out: Path | None) -> Curves:
    curves = Curves(arm)
    path = run_path(out, lab.name, place, arm) if out else None
    with _recorded(lab, curves, steps, seed, path) as recording:
        curves.on_step = _each_step(place, report, recording)
        _train(lab, curves, steps, seed)
        report(_tick(place, curves, done=True))
        curves.on_step = None
    return recording.read(curves) if recording else curves


def _train(lab: Lab, curves: Curves, steps: int, seed: int) -> None:
    with _own_randomness_and_thread(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "gradclip skipped a step")  # the table says how many
        try:
            lab.train(curves.arm, steps, seed, curves)
        except NonFiniteGradientError as error:
            curves.note = f"stopped: {error}"


@contextmanager
def _recorded(lab: Lab, curves: Curves, steps: int, seed: int, path: Path | None) -> Iterator[Recording | None]:
    """Record the arm in a file, if there is to be one, and say in it how the arm ended."""
    if path is None:
        yield None
        return
    recording = Recording(path, lab.name, curves.arm, steps, seed)
    try:
        yield recording
    except BaseException as error:
        recording.close(curves, "interrupted" if isinstance(error, (KeyboardInterrupt, _StoppedError)) else "crashed")
        raise
    recording.close(curves)


def _each_step(place: int, report: Report, recording: Recording | None) -> Callable[[Curves, ClipResult], None]:
    """Record every step, and tell how far the arm is from time to time."""
    last = 0.0

    def on_step(curves: Curves, result: ClipResult) -> None:
        nonlocal last
        if recording:
            recording.add(curves, result)
        if time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            report(_tick(place, curves))

    return on_step


def _tick(place: int, curves: Curves, *, done: bool = False) -> Tick:
    loss = curves.losses[-1] if curves.losses else float("nan")
    norm = curves.norms[-1] if curves.norms else float("nan")
    return Tick(place, len(curves.losses), loss, norm, done)


@contextmanager
def _own_randomness_and_thread() -> Iterator[None]:
    """One thread, so that arms side by side do not slow each other and sums come out the same on every machine of a kind."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)


# --- processes --------------------------------------------------------------------------------------------------------

_worker: dict[str, Any] = {}


def _run_in_processes(
    lab: Lab, arms: Sequence[Arm], steps: int, seed: int, jobs: int, report: Report, out: Path | None
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


def _work(name: str, place: int, arm: Arm, steps: int, seed: int, out: Path | None) -> Curves:
    def report(tick: Tick) -> None:
        if _worker["stop"].is_set():
            raise _StoppedError
        _worker["ticks"].put(tick)

    return _run_arm(load(name), place, arm, steps, seed, report, out)
