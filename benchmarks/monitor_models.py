"""The models of ``monitor.py``, and a training step of them as people write it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn

from gradclip.labs.charlm import BATCH, LENGTH, CharModel, batch, encoded

__all__ = ["MODELS", "QUICK", "Job", "nothing"]

BLOCK: Final = 10
"""A block is so many steps, or a multiple: the weights are copied at one recorded step in ten, so each block has its share."""
SHORTEST: Final = 0.5
"""Seconds that a block takes at least: recorded steps are handed over about every half second, once a block."""

Look = Callable[[], object]


def nothing() -> None:
    """Look at nothing."""


@dataclass(frozen=True)
class Job:
    """A model, its loss and its optimizer."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[nn.Module], Tensor]
    clip: float | None = None

    def step(self, look: Look = nothing) -> None:
        """Train for one step; ``look`` is called between ``backward`` and the clipping."""
        self.optimizer.zero_grad()
        self.loss(self.model).backward()
        look()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()

    def exact(self) -> dict[str, Tensor]:
        """Return copies of the gradients, in float64."""
        return {name: p.grad.double() for name, p in self.model.named_parameters() if p.grad is not None}

    def block(self, shortest: float = SHORTEST) -> int:
        """Return how many steps take at least so many seconds, in whole tens."""
        self.step()
        begin = time.perf_counter()
        for _ in range(3):
            self.step()
        each = (time.perf_counter() - begin) / 3
        return BLOCK * max(1, round(shortest / (BLOCK * each)))


def char_lstm(clip: float | None, windows: int = BATCH, length: int = LENGTH) -> Job:
    """The LSTM of ``gradclip lab charlm``: 128 units, 32 windows of 64 characters."""
    data, generator = encoded(), torch.Generator().manual_seed(0)

    def loss(model: nn.Module) -> Tensor:
        characters, following = (part[:windows, :length] for part in batch(data, generator))
        return F.cross_entropy(model(characters).flatten(0, 1), following.flatten())

    return _job(CharModel("LSTM"), loss, clip)


def many_tensors(count: int, width: int, rows: int) -> Job:
    """Residual layers of one weight and one bias each: as many tensors as a transformer has, or ten times that."""
    layers = nn.ModuleList(nn.Linear(width, width) for _ in range(count // 2))
    x = torch.randn(rows, width)

    def loss(model: nn.Module) -> Tensor:
        h = x
        for layer in layers:
            h = h + 0.1 * torch.tanh(layer(h))
        return h.square().mean()

    return _job(layers, loss, 1.0)


def _job(model: nn.Module, loss: Callable[[nn.Module], Tensor], clip: float | None) -> Job:
    return Job(model, torch.optim.SGD(model.parameters(), lr=1e-3), loss, clip)


MODELS: Final[dict[str, Callable[[], Job]]] = {
    f"LSTM {BATCH}x{LENGTH}, not clipped": partial(char_lstm, None),
    f"LSTM {BATCH}x{LENGTH}, clipped": partial(char_lstm, 1.0),
    "148 tensors of width 256, 256 rows": partial(many_tensors, 148, 256, 256),
    "2,000 tensors of width 64, 256 rows": partial(many_tensors, 2000, 64, 256),
}
QUICK: Final[dict[str, Callable[[], Job]]] = {
    "LSTM 2x8, not clipped": partial(char_lstm, None, 2, 8),
    "LSTM 2x8, clipped": partial(char_lstm, 1.0, 2, 8),
    "20 tensors of width 8, 4 rows": partial(many_tensors, 20, 8, 4),
}
"""The same in tiny: what takes long there is not what takes long in a training."""
