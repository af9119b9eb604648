"""Run a script under ``gradclip.record`` in this process, and check its run.

PyTorch takes longer to load than a script to run, so one process runs many scripts; each starts from the same state.
"""

from __future__ import annotations

import gc
import io
import os
import random
import runpy
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.findings.scripts import Script
from gradclip.diagnosis.ranking import check
from gradclip.diagnosis.readings.run_data import RunData, read_run
from gradclip.runs import Run
from gradclip.watch.api import record

__all__ = ["Found", "Outcome", "as_if_first", "recorded", "run"]


@dataclass(frozen=True)
class Found:
    """A finding, as far as it is counted."""

    name: str
    severity: str
    sentence: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a script."""

    script: Script
    found: tuple[Found, ...] = ()
    """The gravest first."""
    error: str = ""
    """Why it did not end well; empty where it did."""
    seconds: float = 0.0
    steps: int = 0


def run(script: Script) -> Outcome:
    """Run a script from start to end and look for what is wrong with it."""
    began = time.perf_counter()
    try:
        with recorded(script) as gathered:
            found = tuple(Found(one.name, one.symptom.severity, one.symptom.sentence) for one in check(gathered))
    except (Exception, SystemExit) as error:
        return Outcome(script, error=_told(error), seconds=time.perf_counter() - began)
    error = "" if gathered.length else "no step was recorded"
    return Outcome(script, found, error, time.perf_counter() - began, gathered.length)


@contextmanager
def recorded(script: Script) -> Iterator[RunData]:
    """Run a script under watch and give what its run file says."""
    with tempfile.TemporaryDirectory() as folder:
        if script.ranks > 1:
            yield _of_ranks(script, folder)
            return
        with as_if_first(script.path), record(out=folder, title=script.name) as recording:
            runpy.run_path(str(script.path), run_name="__main__")
        with Run.open(recording.path) as finished:
            yield read_run(finished)


def _of_ranks(script: Script, folder: str) -> RunData:
    """Run a script of several processes under torchrun, each watched by ``gradclip run``."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={script.ranks}"]
    watched = ["-m", "gradclip", "run", "--no-report", "--out", folder, str(script.path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, *watched], env=environment, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode:
        raise RuntimeError(f"torchrun exited with {done.returncode}: {done.stderr.strip().splitlines()[-1]}")
    (path,) = Path(folder).glob("*.gradclip")
    with Run.open(path) as run:
        return read_run(run)


@contextmanager
def as_if_first(path: Path) -> Iterator[None]:
    """Let a script find the process as a fresh interpreter would be, and leave nothing of it behind."""
    arguments, threads, dtype = sys.argv, torch.get_num_threads(), torch.get_default_dtype()
    sys.argv = [str(path)]
    torch.set_num_threads(1)
    _seed()
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.argv = arguments
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(True)
        gc.collect()  # a living optimizer of this script would be watched in the next


def _seed() -> None:
    random.seed(0)
    np.random.seed(0)  # what a script that forgets to seed would use
    torch.manual_seed(0)


def _told(error: BaseException) -> str:
    """Say what went wrong, and in which line of the script."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
