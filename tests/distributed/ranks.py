"""Processes that are kept for a whole session, so that a case on 2 or 4 ranks costs milliseconds."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing

MOST = 4
TIMEOUT = 60.0
"""Seconds after which a case has failed, whatever its ranks wait for."""
_GRACE = 10.0
"""Seconds that the others have, once one rank has raised: they may wait for it in vain."""


@dataclass
class Outcome:
    """What a rank returned, or raised (as text: its type, message and traceback)."""

    value: Any = None
    error: str = ""
    kind: str = ""
    message: str = ""


class RanksError(AssertionError):
    """A rank raised, or hangs."""


class Ranks:
    """Up to four processes that wait for work."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="gradclip-ranks-"))
        self._started: list[tuple[Any, connection.Connection]] = []
        self._worlds = 0

    def outcomes(self, count: int, function: Callable[..., Any], *arguments: Any, timeout: float = TIMEOUT) -> list[Outcome]:
        """Call a function of a test module on so many ranks, and return what each returned or raised.

        Raises:
            RanksError: some did not end in time: which, and where they hang. All are killed then, and started anew at the
                next call.
        """
        self._start()
        self._worlds += 1
        store = str(self._folder / f"store-{self._worlds}")
        waiting = {}
        for rank, (_, pipe) in enumerate(self._started[:count]):
            pipe.send((store, rank, count, function, arguments))
            waiting[pipe] = rank
        found: dict[int, Outcome] = {}
        left = timeout
        while waiting:
            ready = connection.wait(list(waiting), left)
            if not ready:
                self._fail(waiting, found, left)
            for pipe in ready:
                rank = waiting.pop(pipe)
                try:
                    found[rank] = pipe.recv()
                except EOFError:
                    found[rank] = Outcome(error=f"the process of rank {rank} died", kind="EOFError")
            if any(outcome.error for outcome in found.values()):
                left = min(left, _GRACE)
        if any(outcome.kind == "EOFError" for outcome in found.values()):
            self.stop()
        return [found[rank] for rank in range(count)]

    def __call__(self, count: int, function: Callable[..., Any], *arguments: Any, timeout: float = TIMEOUT) -> list[Any]:
        """Call a function on so many ranks, and return what each returned.

        Raises:
            RanksError: a rank raised, or hangs.
        """
        found = self.outcomes(count, function, *arguments, timeout=timeout)
        for rank, outcome in enumerate(found):
            if outcome.error:
                raise RanksError(f"rank {rank} of {count} raised\n{outcome.error}")
        return [outcome.value for outcome in found]

    def stop(self) -> None:
        """End all processes."""
        for process, pipe in self._started:
            pipe.close()
            process.kill()
            process.join()
        self._started = []

    def _start(self) -> None:
        if self._started:
            return
        context = multiprocessing.get_context("spawn")  # fork-safe: nothing of this process is in them
        for rank in range(MOST):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, str(self._folder / f"stack-{rank}")), daemon=True)
            process.start()
            theirs.close()
            self._started.append((process, ours))
        for _, pipe in self._started:
            if not pipe.poll(10 * TIMEOUT):  # importing torch may take its time on a busy machine
                raise RanksError("the processes did not start")
            pipe.recv()

    def _fail(self, waiting: dict[Any, int], found: dict[int, Outcome], seconds: float) -> None:
        texts = [f"rank {rank} raised\n{outcome.error}" for rank, outcome in sorted(found.items()) if outcome.error]
        for rank in sorted(waiting.values()):
            texts.append(f"rank {rank} hangs:\n{self._stack(rank)}")
        self.stop()
        raise RanksError(f"no answer for {seconds:g} s\n" + "\n".join(texts))

    def _stack(self, rank: int) -> str:
        process, _ = self._started[rank]
        os.kill(process.pid, signal.SIGUSR1)
        process.join(0.5)
        return (self._folder / f"stack-{rank}").read_text()


def _serve(pipe: connection.Connection, stack: str) -> None:
    """Do what comes through the pipe, one call after another, in the world that it asks for."""
    import torch.distributed as dist

    import gradclip  # noqa: F401

    torch.set_num_threads(1)
    where = open(stack, "w")  # noqa: SIM115
    faulthandler.register(signal.SIGUSR1, where, all_threads=False)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    pipe.send("ready")
    while True:
        try:
            store, rank, count, function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            torch.manual_seed(0)
            dist.init_process_group("gloo", store=dist.FileStore(store, count), rank=rank, world_size=count)
            os.environ.update(RANK=str(rank), WORLD_SIZE=str(count), LOCAL_RANK=str(rank))
            done = Outcome(function(*arguments))
        except BaseException as error:
            done = Outcome(error=traceback.format_exc(), kind=type(error).__name__, message=str(error))
        if dist.is_initialized():
            dist.destroy_process_group()
        try:
            pipe.send(done)
        except Exception as error:
            pipe.send(Outcome(error=f"what was returned cannot be sent: {error}", kind=type(error).__name__))
