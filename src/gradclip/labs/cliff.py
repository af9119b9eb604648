"""The cliff: one step of the exploding gradient, on a loss surface small enough to draw (Pascanu et al. 2013, figure 6).

One recurrent unit, x_t = w * sigmoid(x_{t-1}) + b, starts at x_0 = 0.5, runs for 50 steps, and should end with
sigmoid(x_50) = 0.7. Its loss is a function of w and b alone, so that every step of gradient descent can be seen on a map.

What to look at:

- the wall, where the map changes from dark to light within a hair's breadth: there the unit goes over from one fixed point
  to another, and 50 repetitions make the slope enormous;
- without clipping, the step that meets the wall: it leaves the valley for good, and what follows is a slow way back;
- with clipping, the same wall gives a step of ``lr`` times the threshold, as short as the threshold says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from gradclip import clip_
from gradclip.labs.lab import Arm, Curves, Lab, Values, number
from gradclip.labs.pictures import Path, surface
from gradclip.report.charts import COLOURS, Chart

START, TARGET, REPEATS = (5.2, -2.6), 0.7, 50
THROWN = 1.0
"""A step longer than this has left the valley."""

# --- model ------------------------------------------------------------------------------------------------------------


def loss(w: Tensor, b: Tensor) -> Tensor:
    """The squared error of the unit; ``w`` and ``b`` may be whole maps of weights."""
    x = torch.full_like(w, 0.5)
    for _ in range(REPEATS):
        x = w * torch.sigmoid(x) + b
    return (torch.sigmoid(x) - TARGET) ** 2


# --- training ---------------------------------------------------------------------------------------------------------


def train(arm: Arm, steps: int, seed: int) -> Iterator[Values]:
    """Follow the gradient from the same place; nothing here is random, so the seed changes nothing."""
    weights = nn.ParameterDict({name: torch.tensor(at, dtype=torch.float64) for name, at in zip("wb", START, strict=True)})
    optimizer = torch.optim.SGD(weights.parameters(), lr=arm.lr)
    for _ in range(steps):
        before = place(weights)
        error = loss(weights["w"], weights["b"])
        optimizer.zero_grad()
        error.backward()
        if arm.clips:
            clip_(weights, arm.clip)
        optimizer.step()
        w, b = place(weights)
        yield {"loss": error.item(), "w": w, "b": b, "step length": math.dist(before, (w, b))}


def place(weights: nn.ParameterDict) -> tuple[float, float]:
    """Where the weights are on the map."""
    return weights["w"].item(), weights["b"].item()


# --- score and pictures -----------------------------------------------------------------------------------------------


def last_loss(curves: Curves) -> float:
    """The loss of the last step: nothing is noisy here."""
    return curves.losses[-1]


def longest(curves: Curves) -> float:
    """The longest step, as a distance in (w, b)."""
    return max(curves.also["step length"], default=math.nan)


def pictures(runs: Sequence[Curves]) -> list[Chart]:
    """The map with the path of each arm, whole and close to the wall."""
    whole = (
        "Each path starts at (5.2, −2.6) and ends at its large dot. Dark is a low loss, and where light meets dark is the "
        "wall: a long straight line is a single step, thrown by it."
    )
    near = "The same from near: each touch of the wall sends the weights up, by a small step or out of the picture."
    return [_map("The cliff", whole, runs, (4.0, 9.0), (-4.0, 4.0)), _map("At the wall", near, runs, (4.3, 5.4), (-3.0, -2.0))]


def _map(title: str, see: str, runs: Sequence[Curves], w: tuple[float, float], b: tuple[float, float]) -> Chart:
    ws, bs = (torch.linspace(*ends, 150, dtype=torch.float64) for ends in (w, b))
    heights = loss(*torch.meshgrid(ws, bs, indexing="xy")).log10().clamp(min=-4)
    colours = (COLOURS[1], COLOURS[0], *COLOURS[2:])
    paths = [
        Path(run.arm.method, [START[0], *run.also["w"]], [START[1], *run.also["b"]], colours[i % len(colours)])
        for i, run in enumerate(runs)
    ]
    return surface(title, see, paths, heights.tolist(), ws.tolist(), bs.tolist())


def judge(runs: Sequence[Curves]) -> str:
    """Whether the wall threw the weights, and how the runs ended."""
    return f"At the same wall, {'; '.join(map(_fate, runs))}."


def _fate(run: Curves) -> str:
    step, end = longest(run), f"{run.losses[-1]:.2g}"
    if step > THROWN:
        return f"{run.arm.how}, one step of length {number(step)} throws the weights away, and the loss ends at {end}"
    return f"{run.arm.how}, no step is longer than {number(step)}, and the loss ends at {end}"


LAB = Lab(
    name="cliff",
    title="The cliff, and the step that clipping stops",
    about=(
        f"One recurrent unit, x ← w · sigmoid(x) + b, runs for {REPEATS} steps from 0.5 and should end at sigmoid(x) = "
        f"{TARGET}. Two weights make a loss that can be drawn, with every step of gradient descent on it (Pascanu et al. 2013, "
        "figure 6). Nothing is random here: every seed gives the same picture."
    ),
    arms=(Arm("unit", 0.05), Arm("unit", 0.05, "global_norm:1.0")),
    train=train,
    steps=2000,
    score=last_loss,
    score_name="last loss",
    loss_name="squared error",
    columns={"longest step": lambda run: number(longest(run))},
    pictures=pictures,
    judge=judge,
)  # fmt: skip
