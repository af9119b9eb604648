"""The classic exercise: an LSTM reads a sequence of random numbers and must give their sum at the end.

50 numbers from N(0, 1), one LSTM layer of 32 units, squared error, plain SGD. The sum has variance 50, so 50 is the error of
always answering 0. The weights together start with a norm of 7.

What to look at:

- the norm of every step before and after clipping: gradients of every size go in, and none above the threshold comes out;
- the largest norm without clipping, times the learning rate: a single step as long as all weights together or longer.
  Such steps need not be many, and the loss need not become NaN, for training to fail;
- the loss: with clipping the same learning rate learns to add, without it the error stays near that of answering 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn

from gradclip import clip_
from gradclip.labs.lab import Arm, Curves, Lab, Values, last_mean

HIDDEN, LENGTH, BATCH = 32, 50, 32

# --- data -------------------------------------------------------------------------------------------------------------


def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sequences of shape (batch, length, 1) and their sums, of shape (batch,)."""
    numbers = torch.randn(BATCH, LENGTH, 1, generator=generator)
    return numbers, numbers.sum(dim=(1, 2))


# --- model ------------------------------------------------------------------------------------------------------------


class Adder(nn.Module):
    """An LSTM, and a linear layer on its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, HIDDEN, batch_first=True)
        self.output = nn.Linear(HIDDEN, 1)

    def forward(self, numbers: Tensor) -> Tensor:
        """Shape (batch, length, 1) to (batch,)."""
        hidden, _ = self.lstm(numbers)
        return self.output(hidden[:, -1]).squeeze(1)


# --- training ---------------------------------------------------------------------------------------------------------


Clip = Callable[[nn.Module, Arm], Values]
"""Clips a model's gradients as an arm does; gives what else is measured at the step, by name."""


def plainly(model: nn.Module, arm: Arm) -> Values:
    """Clip, and measure nothing else."""
    if arm.clips:
        clip_(model, arm.clip)
    return {}


def train(arm: Arm, steps: int, seed: int, clip: Clip = plainly) -> Iterator[Values]:
    """Train one arm; its weights and its sequences depend on the seed alone, so that all arms see the same."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = Adder()
    optimizer = torch.optim.SGD(model.parameters(), lr=arm.lr)
    for _ in range(steps):
        numbers, sums = batch(generator)
        loss = F.mse_loss(model(numbers), sums)
        optimizer.zero_grad()
        loss.backward()
        also = clip(model, arm)  # after backward(), before step()
        optimizer.step()
        yield {"loss": loss.item(), **also}


# --- arms and score ---------------------------------------------------------------------------------------------------


def squared_error(curves: Curves) -> float:
    """The squared error of the last 50 steps."""
    return last_mean(curves.losses)


LAB = Lab(
    name="lstm",
    title="An LSTM that adds, with and without clipping",
    about=(
        f"An LSTM of {HIDDEN} units reads {LENGTH} numbers from N(0, 1) and must give their sum, with plain SGD and {BATCH} "
        f"sequences a step. Always answering 0 costs a squared error of {LENGTH}. The score is the mean of the last 50 steps."
    ),
    arms=(Arm("LSTM", 0.1), Arm("LSTM", 0.1, "global_norm:20.0")),
    train=train,
    steps=800,
    score=squared_error,
    score_name="squared error",
    loss_name="squared error",
)
