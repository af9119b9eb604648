"""Temporal order: two symbols, long ago; which came first? (Hochreiter & Schmidhuber 1997; Pascanu et al. 2013, section 4).

A sequence of T distractors holds two symbols that matter, each A or B: one in its second tenth, one in its fifth. At the end
a recurrent net must say which two they were, and in which order: four classes. What it needs to know must survive half the
sequence, so that the gradient has to travel as far back, and sooner or later it explodes on the way.

What to look at:

- how many of five runs solve the task (an error below 1% on new sequences), by length, with and without clipping: from
  length 20 on it is clipping that decides;
- length 50: nobody solves it. There the gradient vanishes before it explodes, which clipping cannot mend.

Runs of the same number share weights and sequences. A run ends as soon as it has solved the task; with ``--steps 6000``, half
as many again, one more solves length 30.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn

from gradclip import clip_
from gradclip.labs.lab import UNCLIPPED, Arm, Curves, Lab, Values, grouped, number
from gradclip.labs.pictures import against, listed, middle
from gradclip.report.charts import COLOURS, Chart, Line
from gradclip.report.table import Table

LENGTHS, RUNS = (10, 20, 30, 50), (1, 2, 3, 4, 5)
SYMBOLS, HIDDEN, BATCH = 6, 50, 20
EVERY, NEW, SOLVED = 100, 1000, 0.01
"""How often a run is examined, on how many new sequences, and below which error it has solved the task."""

# --- data -------------------------------------------------------------------------------------------------------------


def batch(length: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sequences of shape (size, length, symbols), one-hot, and their classes, of shape (size,)."""

    def somewhere(start: float, end: float) -> Tensor:
        return torch.randint(int(start * length), int(end * length), (size,), generator=generator)

    symbols = torch.randint(2, SYMBOLS, (size, length), generator=generator)  # 2 and above say nothing
    first, second = torch.randint(2, (2, size), generator=generator)
    each = torch.arange(size)
    symbols[each, somewhere(0.1, 0.2)] = first
    symbols[each, somewhere(0.4, 0.5)] = second
    return F.one_hot(symbols, SYMBOLS).float(), 2 * first + second


# --- model ------------------------------------------------------------------------------------------------------------


class Order(nn.Module):
    """One tanh layer and a linear one on its last state; all weights and biases from N(0, 0.1)."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.RNN(SYMBOLS, HIDDEN, batch_first=True)
        self.output = nn.Linear(HIDDEN, 4)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.1)

    def forward(self, symbols: Tensor) -> Tensor:
        """Shape (batch, length, symbols) to logits of shape (batch, 4)."""
        states, _ = self.recurrent(symbols)
        return self.output(states[:, -1])


# --- training ---------------------------------------------------------------------------------------------------------


def train(arm: Arm, steps: int, seed: int) -> Iterator[Values]:
    """Train one run until it has solved the task; its seed is ``seed`` plus its number."""
    length = int(arm.model.split()[-1])
    torch.manual_seed(seed + arm.run)
    generator = torch.Generator().manual_seed(seed + arm.run)
    model = Order()
    optimizer = torch.optim.SGD(model.parameters(), lr=arm.lr)
    error = 1.0
    for step in range(1, steps + 1):
        symbols, classes = batch(length, BATCH, generator)
        loss = F.cross_entropy(model(symbols), classes)
        optimizer.zero_grad()
        loss.backward()
        if arm.clips:
            clip_(model, arm.clip)
        optimizer.step()
        if step % EVERY == 0:
            error = examined(model, length, generator)
        yield {"loss": loss.item(), "error": error}
        if error < SOLVED:
            break


@torch.no_grad()
def examined(model: nn.Module, length: int, generator: torch.Generator) -> float:
    """The share of new sequences that the model gets wrong."""
    symbols, classes = batch(length, NEW, generator)
    return (model(symbols).argmax(1) != classes).float().mean().item()


# --- table, picture and verdict ---------------------------------------------------------------------------------------


def error(curves: Curves) -> float:
    """The error on new sequences when the run was examined last."""
    return curves.also["error"][-1]


def solved(runs: Sequence[Curves]) -> int:
    """How many of the runs have solved the task."""
    return sum(error(run) < SOLVED for run in runs)


def by_method_and_length(runs: Sequence[Curves]) -> dict[tuple[str, str], list[Curves]]:
    """The runs by clipping method and length, the lengths in order."""
    return grouped(runs, lambda arm: (arm.how, arm.model))


def table(runs: Sequence[Curves]) -> Table:
    """One row per length and method."""
    columns = ("runs", "solved", "updates until then", "largest norm of any")
    rows = [(f"{length}, {how}", *_row(same)) for (how, length), same in by_method_and_length(runs).items()]
    return Table("One row per length and method", columns, rows, frozenset((1, 2, 3)))


def _row(runs: Sequence[Curves]) -> tuple[str, str, str]:
    updates = middle([len(run.losses) for run in runs if error(run) < SOLVED])
    largest = max(norm for run in runs for norm in run.norms)
    return f"{solved(runs)} of {len(runs)}", "–" if math.isnan(updates) else f"{updates:,.0f}", number(largest)


def pictures(runs: Sequence[Curves]) -> list[Chart]:
    """Solved runs by length."""
    counts: dict[str, dict[int, int]] = {}
    for (how, length), same in by_method_and_length(runs).items():
        counts.setdefault(how, {})[int(length.split()[-1])] = solved(same)
    lines = [
        Line(how, list(by_length.values()), COLOURS[i % len(COLOURS)], dashed=how == "without clipping", steps=list(by_length))
        for i, (how, by_length) in enumerate(counts.items())
    ]
    see = f"Of {len(RUNS)} runs each. Where the lines part, clipping decides; where both are at 0, the gradient has vanished."
    return [against("Solved runs by length", see, lines, x="length of the sequence", y="runs that solved the task")]


def judge(runs: Sequence[Curves]) -> str:
    """The solved runs of every length, with and without."""
    said: dict[str, list[str]] = {}
    for (how, _), same in by_method_and_length(runs).items():
        said.setdefault(how, []).append(str(solved(same)))
    lengths = listed(list(dict.fromkeys(run.arm.model.split()[-1] for run in runs)))
    counts = "; ".join(f"{how} {listed(each)}" for how, each in said.items())
    each = max(map(len, by_method_and_length(runs).values()))
    return f"Of {each} runs at length {lengths}, this many solved the task: {counts}."


LAB = Lab(
    name="temporal-order",
    title="Which came first? How far back clipping lets a net learn",
    about=(
        f"A tanh net of {HIDDEN} units reads T symbols, two of which matter, one in the second tenth and one in the fifth, and "
        f"names both at the end (Pascanu et al. 2013, section 4). Plain SGD, {BATCH} sequences a step, weights from N(0, 0.1); "
        f"a run has solved the task when less than 1% of {NEW:,} new sequences are wrong, and then ends."
    ),
    arms=tuple(
        Arm(f"length {length}", 0.1, clip, run) for length in LENGTHS for run in RUNS for clip in (UNCLIPPED, "global_norm:1.0")
    ),
    train=train,
    steps=4000,
    score=error,
    score_name="error",
    loss_name="cross entropy, nats",
    table=table,
    pictures=pictures,
    judge=judge,
    detailed=lambda arm: arm.run == 1 and arm.model == "length 20",
)
