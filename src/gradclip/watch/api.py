"""Record a training run from code."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradclip._write import make_folder
from gradclip.runs.process import ending_of, process_began
from gradclip.runs.schema import SUFFIX
from gradclip.runs.writer import RunWriter
from gradclip.watch.messages import print_messages
from gradclip.watch.observe.patches import Patches
from gradclip.watch.observe.session import Session
from gradclip.watch.record.parameter_names import kinds_of
from gradclip.watch.record.recorder import Recorder
from gradclip.watch.start.job import job_file, job_of
from gradclip.watch.start.launch import Settings

__all__ = ["Recording", "record"]

_running: Recording | None = None
_lock = threading.Lock()


class Recording:
    """A run that is being recorded, until :meth:`close`; see :func:`record`."""

    def __init__(self, session: Session, writer: RunWriter) -> None:
        self._session, self._writer = session, writer
        self._patches = Patches(lambda: session, None, writer_warning)
        self._open = True
        atexit.register(self.close)

    @property
    def path(self) -> Path:
        """The run file."""
        return self._writer.path

    @property
    def steps(self) -> int:
        """How many steps have been handed to the file so far."""
        return self._session.recorder.totals.steps

    @property
    def norm(self) -> float:
        """The gradient norm of the last of these steps, before clipping; NaN before the first."""
        return self._session.recorder.totals.norm

    def flush(self) -> None:
        """Write everything that was recorded so far; returns when it is in the file.

        Training waits for it, ten seconds at most; without it a step is in the file within about two. Does nothing once the
        recording is closed, or has failed.
        """
        if self._writer.recording:
            self._session.recorder.flush()
            self._writer.flush()

    def close(self, status: str = "finished") -> None:
        """Put PyTorch's functions back and write the rest; a second call does nothing.

        Args:
            status: how the training ended: ``finished``, ``crashed`` or ``interrupted``.
        """
        global _running  # noqa: PLW0603 (there is one PyTorch to watch)
        if not self._open:
            return
        self._open = False
        atexit.unregister(self.close)
        self._patches.remove()
        with _lock:
            if _running is self:
                _running = None
        self._session.close(status)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close(ending_of(kind))

    def __repr__(self) -> str:
        return f"Recording({str(self.path)!r}, {'recording' if self._open else 'closed'})"


def record(
    model: nn.Module | None = None,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
    *,
    out: str | os.PathLike[str] = "runs",
    every: int = 1,
    title: str | None = None,
) -> Recording:
    """Record what the gradients do from here on, into a new run file.

    Of a job of several processes, each records what it has: call it on all ranks, once there is a process group. The first
    rank's file is the run; where tensors are sharded, it takes those of all ranks to know their norms.

    A context manager, or an object to ``close()``. The training loop stays as it is, and its numbers too: losses, gradient
    norms before and after clipping, thresholds and learning rates are seen where PyTorch computes them.

    Args:
        model: gives the tensors their names; without it they are found among the living modules.
        optimizer: record the steps of this optimizer (or of these) alone; of all by default.
        out: the folder for the run file, or the file itself, ``....gradclip``; one that is there is replaced.
        every: keep the norms of single tensors at every n-th step.
        title: what the report is called; the script's name by default.

    Returns:
        The recording; ``path`` is its file.

    Raises:
        RuntimeError: one recording is already running in this process.
        TypeError: not a module, or not an optimizer.
        ValueError: ``every`` is less than 1.

    >>> import tempfile
    >>> from gradclip.runs import Run
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> folder = tempfile.TemporaryDirectory()
    >>> with record(model, optimizer, out=folder.name) as recording:
    ...     model(torch.tensor([[3.0, 4.0]])).sum().backward()
    ...     optimizer.step()
    >>> with Run.open(recording.path) as run:
    ...     run.steps().norm, run.tensors[0].name
    (array([5.]), 'weight')
    >>> folder.cleanup()
    """
    global _running  # noqa: PLW0603
    optimizers = _checked(model, optimizer, every)
    with _lock:
        if _running is not None:
            raise RuntimeError(f"{_running.path} is being recorded already: close() it first, there is one PyTorch to watch")
        name = title or Path(sys.argv[0] if sys.argv else "").name or "python"
        meta = {"title": name, "clip": None, "framework": f"torch {torch.__version__}", "every": every}
        writer = _new_writer(Path(out), meta)
        names = {} if model is None else {id(p): name for name, p in model.named_parameters()}
        recorder = Recorder(lambda: writer)
        recorder.open()
        session = Session(recorder, every, optimizers, names)
        for living in [] if optimizers else _living_optimizers(names):
            session.optimizer_found(living)
        _running = Recording(session, writer)
        return _running


def _new_writer(out: Path, meta: dict[str, Any]) -> RunWriter:
    job = job_of(Settings(meta["title"]))
    of_job, new_path = job_file(job, process_began())
    meta |= of_job
    if job is not None and job.rank and out.suffix == SUFFIX:
        out = out.parent
    if out.suffix != SUFFIX:
        return RunWriter.create(out, meta, new_path=new_path, on_failure=writer_warning)
    with contextlib.suppress(OSError):  # the writer says what is wrong
        make_folder(out.parent)
        for end in ("", "-wal", "-shm"):
            out.with_name(out.name + end).unlink(missing_ok=True)
    return RunWriter(out, meta, on_failure=writer_warning)


def writer_warning(sentence: str) -> None:
    """Say on standard error what went wrong; training goes on."""
    print_messages([sentence], sys.stderr)


def _checked(model: Any, optimizer: Any, every: int) -> Sequence[torch.optim.Optimizer]:
    if model is not None and not isinstance(model, nn.Module):
        raise TypeError(f"record takes a model first, a torch.nn.Module, not {type(model).__name__}; an optimizer comes second")
    optimizers = () if optimizer is None else tuple(optimizer) if isinstance(optimizer, (list, tuple)) else (optimizer,)
    for one in optimizers:
        if not isinstance(one, torch.optim.Optimizer):
            raise TypeError(f"optimizer must be a torch.optim optimizer, or a list of them, not {type(one).__name__}")
    if every < 1:
        raise ValueError(f"every is a number of steps of at least 1, not {every}")
    return optimizers


def _living_optimizers(names: dict[int, str]) -> list[torch.optim.Optimizer]:
    """The optimizers that were made before; with a model, those that own any of its parameters."""
    kinds = kinds_of(torch.optim.Optimizer)
    found = [thing for thing in gc.get_objects() if type(thing) in kinds]
    return [one for one in found if not names or any(id(p) in names for group in one.param_groups for p in group["params"])]
