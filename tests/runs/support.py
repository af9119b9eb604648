"""Small programs that record, run in processes of their own (without a framework, so that they start at once)."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import numpy as np
import pytest

from gradclip.runs import Run, RunWriter, StepRow, TensorInfo

PREFIX = "recording stopped, training goes on: "

PRELUDE = """
import os, signal, sys, time, warnings
from gradclip.runs import *
def add(writer, step, width=8):
    writer.add_step(StepRow(step=step, loss=1.0 / (step + 1), norm=float(step)))
    writer.add_tensor_row(step, 0, "norm", [float(step)] * width)
    writer.add_events(step, 0, [Event("backward"), Event("step", 0)])
def tensors(width=8):
    return [TensorInfo(f"w{i}", (3,)) for i in range(width)]
"""


def start(program, *arguments, **options):
    """Start a program; its output can be read line by line."""
    command = [sys.executable, "-c", PRELUDE + program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1, **options)


@contextlib.contextmanager
def running(program, *arguments, **options):
    """Start a program and kill it in the end, whatever happens in between."""
    with start(program, *arguments, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def run_program(program, *arguments, code=0, **options):
    """Run a program to its end; return what it printed."""
    process = start(program, *arguments, **options)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    return output, errors


def recorded(path, steps=3, *, width=2, **options):
    """Record a small run and return its path."""
    writer = RunWriter(path, {"title": "small"}, **options)
    writer.add_tensors([TensorInfo(f"w{number}", (number + 1, 2)) for number in range(width)])
    for step in range(steps):
        writer.add_step(StepRow(step=step, loss=float(step)))
        writer.add_tensor_row(step, 0, "norm", np.arange(width) + step)
    writer.close()
    assert writer.failed is None
    return path


def train_on(writer, steps=3):
    """Do what a training loop does with a writer; nothing of it may raise."""
    writer.add_tensors([TensorInfo("w", (2,))])
    for step in range(steps):
        writer.add_step(StepRow(step=step))
        writer.add_tensor_row(step, 0, "norm", [1.0])
        writer.add_events(step, 0, [])
        writer.update_meta(step=step)
    written = writer.flush()
    writer.close("crashed", exit_code=1)
    return written


@pytest.fixture
def reading():
    """Open runs, and close them after the test."""
    runs = []

    def read(path):
        runs.append(Run.open(path))
        return runs[-1]

    yield read
    for run in runs:
        run.close()
