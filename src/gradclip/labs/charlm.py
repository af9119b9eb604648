"""A character language model on real text: does clipping save a recurrent net at a high learning rate?

The text is Python's own manual, ``pydoc_data.topics``, which comes with every Python. A recurrent net with 128 units reads 64
characters and predicts each next one; plain SGD, because an adaptive optimizer hides what clipping does.

What to look at:

- LSTM at lr 20: without clipping a few steps at the start, with a norm 50 times the threshold, throw the weights away, and
  400 steps are not enough to come back; with the norm clipped to 0.25 the same learning rate is the best of all.
- RNN at lr 4: the gradient of a plain RNN explodes through time; compare the largest norm with the median.
- LSTM at lr 4: the control. Its gradient hardly ever passes the threshold, so clipping changes next to nothing.

Guessing every character alike costs log2(103) = 6.7 bits; a score above that is worse than knowing nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn

from gradclip import attach
from gradclip.labs.lab import Arm, Curves, Lab, Values, last_mean, number

HIDDEN, LENGTH, BATCH = 128, 64, 32

# --- data -------------------------------------------------------------------------------------------------------------

TEXT = "".join(topics[name] for name in sorted(topics))
ALPHABET = sorted(set(TEXT))


def encoded() -> Tensor:
    """The text as numbers, shape (characters,)."""
    number = {character: i for i, character in enumerate(ALPHABET)}
    return torch.tensor([number[character] for character in TEXT])


def batch(data: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Windows from anywhere in the text and the same one character later, each of shape (batch, length)."""
    starts = torch.randint(len(data) - LENGTH, (BATCH, 1), generator=generator)
    windows = data[starts + torch.arange(LENGTH + 1)]
    return windows[:, :-1], windows[:, 1:]


# --- model ------------------------------------------------------------------------------------------------------------


class CharModel(nn.Module):
    """Embedding, one recurrent layer, and a linear layer to the next character; the state starts at zero in each window."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(ALPHABET), HIDDEN)
        self.recurrent = {"RNN": nn.RNN, "LSTM": nn.LSTM}[kind](HIDDEN, HIDDEN, batch_first=True)
        self.output = nn.Linear(HIDDEN, len(ALPHABET))

    def forward(self, characters: Tensor) -> Tensor:
        """Shape (batch, length) to logits of shape (batch, length, alphabet)."""
        hidden, _ = self.recurrent(self.embedding(characters))
        return self.output(hidden)


# --- training ---------------------------------------------------------------------------------------------------------


def train(arm: Arm, steps: int, seed: int) -> Iterator[Values]:
    """Train one arm; its weights and its batches depend on the seed alone, so that all arms see the same."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    data = encoded()
    model = CharModel(arm.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=arm.lr)
    if arm.clips:
        attach(optimizer, arm.clip, parameters=model)
    for _ in range(steps):
        characters, following = batch(data, generator)
        loss = F.cross_entropy(model(characters).flatten(0, 1), following.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()  # clips inside
        yield {"loss": loss.item()}


# --- arms and score ---------------------------------------------------------------------------------------------------


def bits_per_character(curves: Curves) -> float:
    """The cross entropy of the last 50 steps in bits."""
    return last_mean(curves.losses) / math.log(2)


def bits(curves: Curves) -> str:
    """The same, for a sentence."""
    return number(bits_per_character(curves))


LAB = Lab(
    name="charlm",
    title="A character language model, with and without clipping",
    about=(
        f"A recurrent net with {HIDDEN} units reads {LENGTH} characters of Python's own manual and predicts each next one, "
        f"with plain SGD and {BATCH} windows a step. Guessing every character alike costs {math.log2(len(ALPHABET)):.1f} bits: "
        "a score above that is worse than knowing nothing. The score is the mean of the last 50 steps."
    ),
    arms=(
        Arm("LSTM", 20.0),
        Arm("LSTM", 20.0, "global_norm:0.25"),
        Arm("RNN", 4.0),
        Arm("RNN", 4.0, "global_norm:1.0"),
        Arm("LSTM", 4.0),
        Arm("LSTM", 4.0, "global_norm:1.0"),
    ),
    train=train,
    steps=400,
    score=bits_per_character,
    score_name="bits per character",
    loss_name="cross entropy, nats per character",
)
