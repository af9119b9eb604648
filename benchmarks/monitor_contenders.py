"""Who looks at the gradients in ``monitor.py``: gradclip, and what people use to the same end.

Each is a context manager around a block of steps; it gives a :class:`Watcher`. What one of them saw at its last step is
compared with float64 before anything is timed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from monitor_models import Job, Look, nothing
from torch import Tensor

from gradclip.runs import Run
from gradclip.watch.api import Recording, record

__all__ = ["LEAVE_WORK", "LOGGING", "PLAIN", "RECORD", "Contender", "Watcher", "contenders"]

PLAIN, RECORD, LOGGING = "plain step", "gradclip record", "p.grad.norm().item() of each"
WANDB: Final = "wandb.watch, offline"
LEAVE_WORK: Final = (WANDB,)
"""Those whose own process is still busy when the next one has its turn."""
BINS: Final = 64
"""As many as wandb has."""
LOOSE: Final = 1e-4
"""Norms in float32 may be so far from float64; gradclip's 100 times less."""

Exact = Mapping[str, Tensor]
Histogram = tuple[Sequence[float], Sequence[float]]
"""Counts, and one more edges than counts."""


@dataclass(frozen=True)
class Watcher:
    """What is done at every step, at the end of a block (its time counts), and to check what was seen."""

    look: Look = nothing
    settle: Look = nothing
    check: Callable[[Exact], float | None] = lambda exact: None
    """Returns the largest relative error of a norm, None where no norm was told; raises where something is wrong."""


Contender = Callable[[Job, Path], AbstractContextManager[Watcher]]


@contextmanager
def plain(job: Job, folder: Path) -> Iterator[Watcher]:
    """Nobody looks."""
    yield Watcher()


@contextmanager
def recorded(job: Job, folder: Path) -> Iterator[Watcher]:
    """Record into a run file; what waits at the end of a block is written to it within the block's time."""
    with record(job.model, job.optimizer, out=folder) as recording:
        yield Watcher(
            settle=recording.flush,
            check=lambda exact: norm_error(_last_norms(recording), exact, LOOSE / 100),
        )


def _last_norms(recording: Recording) -> dict[str, float]:
    recording.flush()
    with Run.open(recording.path) as run:
        names = [tensor.name for tensor in run.tensors_of(0)]
        return dict(zip(names, run.tensor_matrix("norm", 0).matrix[-1].tolist(), strict=True))


@contextmanager
def logged(job: Job, folder: Path) -> Iterator[Watcher]:
    """The line that people write; nothing is kept."""
    seen: dict[str, float] = {}

    def look() -> None:
        seen.update({name: p.grad.norm().item() for name, p in job.model.named_parameters() if p.grad is not None})

    yield Watcher(look, check=lambda exact: norm_error(seen, exact, LOOSE))


@contextmanager
def lightning_norms(job: Job, folder: Path) -> Iterator[Watcher]:
    """Lightning's utility, as its documentation has it in ``on_before_optimizer_step``; nothing is kept."""
    from lightning.pytorch.utilities import grad_norm

    seen: dict[str, Any] = {}

    def check(exact: Exact) -> float:
        return norm_error({name: float(seen[f"grad_2.0_norm/{name}"]) for name in exact}, exact, LOOSE)

    yield Watcher(lambda: seen.update(grad_norm(job.model, norm_type=2)), check=check)


@contextmanager
def histograms(job: Job, folder: Path) -> Iterator[Watcher]:
    """The arithmetic of wandb's histograms without wandb: finite, smallest, largest, ``torch.histc``; nothing is kept."""
    seen: dict[str, Histogram] = {}

    def look() -> None:
        seen.update({name: histogram(p.grad) for name, p in job.model.named_parameters() if p.grad is not None})

    yield Watcher(look, check=lambda exact: check_histograms(seen, exact))


def histogram(grad: Tensor) -> Histogram:
    """Return 64 bins from the smallest element to the largest; for gradients with some finite elements, not all the same."""
    flat = grad.detach().reshape(-1)
    if not torch.isfinite(flat).all():
        flat = flat[torch.isfinite(flat)]
    low, high = flat.min().item(), flat.max().item()
    return flat.histc(BINS, low, high).tolist(), torch.linspace(low, high, BINS + 1).tolist()


@contextmanager
def wandb_watched(job: Job, folder: Path) -> Iterator[Watcher]:
    """``wandb.watch`` with its default, a histogram of each gradient, at every step; offline, so into a file."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    for place in ("CACHE", "CONFIG", "DATA"):  # nothing is left in the home folder
        os.environ[f"WANDB_{place}_DIR"] = str(folder)
    import wandb

    quiet = wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True, x_disable_meta=True)
    with wandb.init(mode="offline", dir=folder, project="gradclip", settings=quiet) as run:
        run.watch(job.model, log="gradients", log_freq=1, idx=0)

        def check(exact: Exact) -> None:
            some = list(exact)[:: math.ceil(len(exact) / 10)]  # a look into the summary takes wandb ten milliseconds
            found = {name: run.summary[f"gradients/{name}"] for name in some}
            seen = {name: (one["values"], one["bins"]) for name, one in found.items()}
            check_histograms(seen, {name: exact[name] for name in some})

        try:
            yield Watcher(lambda: run.log({"step": 1}), check=check)
        finally:
            run.unwatch(job.model)


def norm_error(seen: Mapping[str, float], exact: Exact, loosest: float) -> float:
    """Return the largest relative error of any tensor's norm.

    Raises:
        AssertionError: a tensor is missing, or its norm is too far off.
    """
    if seen.keys() != exact.keys():
        raise AssertionError(f"{len(seen)} tensors have a norm, of {len(exact)}")
    errors = {name: abs(seen[name] / float(grad.norm()) - 1) for name, grad in exact.items()}
    worst = max(errors, key=errors.__getitem__)
    if not errors[worst] <= loosest:
        raise AssertionError(f"the norm of {worst} is {errors[worst]:.1e} off")
    return errors[worst]


def check_histograms(seen: Mapping[str, Histogram], exact: Exact) -> None:
    """Compare histograms with float64: range, count, and the norm, which the bins give to half a bin's width an element.

    Raises:
        AssertionError: a tensor is missing, or its histogram cannot be of these elements.
    """
    if seen.keys() != exact.keys():
        raise AssertionError(f"{len(seen)} tensors have a histogram, of {len(exact)}")
    for name, grad in exact.items():
        counts, edges = (torch.tensor(list(part), dtype=torch.float64) for part in seen[name])
        low, high = float(grad.min()), float(grad.max())
        slack = 1e-5 * (high - low)
        norm = math.sqrt(float((counts * ((edges[1:] + edges[:-1]) / 2).square()).sum()))
        most = (0.5 * (high - low) / BINS + slack) * math.sqrt(grad.numel())
        right = abs(float(edges[0]) - low) <= slack and abs(float(edges[-1]) - high) <= slack and counts.sum() == grad.numel()
        if not right or not abs(norm - float(grad.norm())) <= most:
            raise AssertionError(f"the histogram of {name} is not that of its gradient")


def contenders(missing: Callable[[str], object] = print) -> dict[str, Contender]:
    """Return who can take part here by name; ``missing`` is given a sentence for each one that is not installed."""
    found: dict[str, Contender] = {PLAIN: plain, RECORD: recorded, LOGGING: logged}
    optional = {
        "Lightning's grad_norm": ("lightning", lightning_norms),
        WANDB: ("wandb", wandb_watched),
    }
    for name, (module, contender) in optional.items():
        if find_spec(module) is None:
            missing(f'{name} is left out: {module} is not installed; pip install "gradclip[bench]"')
        else:
            found[name] = contender
    return {**found, f"histograms of {BINS} bins, torch.histc": histograms}
