"""Weight decay: two ways to pull weights towards zero, and what clipping sees of them.

L2 in the loss adds lambda / 2 * ||w||^2 to it, so that lambda * w becomes part of the gradient. Weight decay leaves the loss
alone and shrinks the weights by a factor 1 - beta at each step. With plain SGD at learning rate alpha and beta = alpha *
lambda they are the same; each arm here trains twins, one of either way, from the same weights on the same data, and measures
how far they part.

What to look at:

- SGD: the twins are one to the last digit (Loshchilov & Hutter 2019, proposition 1);
- Adam: it divides the gradient, and the L2 part with it, by the gradient's size, so that large gradients are decayed less;
- SGD with clipping: L2 is inside the gradient, raises its norm, and is clipped with it; weight decay comes after clipping,
  which neither sees nor weakens it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn

from gradclip import clip_, tensor_norms
from gradclip.labs.lab import Arm, Curves, Lab, Values, last_mean, number
from gradclip.labs.pictures import listed
from gradclip.report.charts import COLOURS, Chart, Line, curves

LAMBDA = 0.01
INPUTS, HIDDEN, BATCH = 10, 32, 32
Parameters = Iterable[nn.Parameter]

# --- data and model ---------------------------------------------------------------------------------------------------


def batch(teacher: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points of shape (batch, inputs), and a wavy function of them, of shape (batch, 1)."""
    points = torch.randn(BATCH, INPUTS, generator=generator, dtype=torch.float64)
    return points, 3 * torch.sin(points @ teacher / math.sqrt(INPUTS))


def small() -> nn.Sequential:
    """One hidden layer, in double precision, so that equal means equal."""
    return nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1)).double()


# --- the two ways -----------------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[Parameters, float], torch.optim.Optimizer]] = {
    "SGD": torch.optim.SGD,
    "Adam": torch.optim.Adam,
}
"""Without any decay of their own: both twins have the same one."""


def penalty(model: nn.Module) -> Tensor:
    """Half lambda times the squared norm of all weights."""
    return LAMBDA / 2 * torch.stack([parameter.square().sum() for parameter in model.parameters()]).sum()


@torch.no_grad()
def decay(model: nn.Module, lr: float) -> None:
    """Shrink all weights by beta = alpha * lambda, which is what AdamW does inside its step."""
    for parameter in model.parameters():
        parameter.mul_(1 - lr * LAMBDA)


# --- training ---------------------------------------------------------------------------------------------------------


def train(arm: Arm, steps: int, seed: int) -> Iterator[Values]:
    """Train twins, one after the other; their steps are those of two optimizers in one run."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(INPUTS, 1, generator=generator, dtype=torch.float64)
    one, other = small(), small()
    other.load_state_dict(one.state_dict())
    first, second = (OPTIMIZERS[arm.model](twin.parameters(), arm.lr) for twin in (one, other))
    for _ in range(steps):
        points, values = batch(teacher, generator)
        error = F.mse_loss(one(points), values)
        first.zero_grad()
        torch.autograd.backward([error, penalty(one)])
        if arm.clips:
            clip_(one, arm.clip)
        first.step()

        second.zero_grad()
        F.mse_loss(other(points), values).backward()
        norm = math.hypot(*tensor_norms(other).values())
        if arm.clips:
            clip_(other, arm.clip)
        decay(other, arm.lr)
        second.step()
        weights = {"weights": length(one), "weights of the twin": length(other)}
        yield {"loss": error.item(), "distance": distance(one, other), "norm of the twin": norm, **weights}


@torch.no_grad()
def length(model: nn.Module) -> float:
    """The norm of all weights together."""
    return float(nn.utils.parameters_to_vector(model.parameters()).norm())


@torch.no_grad()
def distance(one: nn.Module, other: nn.Module) -> float:
    """How far the weights of the twins are apart, as a share of their norm."""
    here, there = (nn.utils.parameters_to_vector(model.parameters()) for model in (one, other))
    return float((here - there).norm() / here.norm())


# --- pictures and verdict ---------------------------------------------------------------------------------------------

EQUAL = 1e-9
"""A distance below this is rounding: double precision has 16 digits, and each step may lose some of the last."""


def pictures(runs: Sequence[Curves]) -> list[Chart]:
    """How far the twins part, and how long their weights are."""
    lines = [
        Line(run.arm.name, [max(each, 1e-17) for each in run.also["distance"]], _colour(run), dashed=not run.arm.clips)
        for run in runs
    ]
    apart = (
        "At the bottom is the last digit of double precision: under plain SGD the twins are the same. Under Adam, or as soon "
        "as the gradient is clipped, they are not. Solid with clipping, dashed without."
    )
    drawn = [
        curves(
            "L2 in the loss against weight decay: how far apart the weights are", apart, lines, y="relative distance", log=True
        )
    ]
    return [*drawn, *(_lengths(run) for run in runs if run.arm.clips)]


def _colour(run: Curves) -> str:
    return COLOURS[list(OPTIMIZERS).index(run.arm.model)]


SEE = {
    "SGD": "Clipping cuts the pull of L2 together with the gradient, and leaves weight decay its full pull.",
    "Adam": "Adam divides the pull of L2 by the gradient's size, clipped or not, and leaves weight decay as it is.",
}


def _lengths(run: Curves) -> Chart:
    lines = [
        Line("L2 in the loss", run.also["weights"], COLOURS[2]),
        Line("weight decay", run.also["weights of the twin"], COLOURS[3]),
    ]
    shorter = min(lines, key=lambda line: line.values[-1]).name
    see = f"{SEE[run.arm.model]} The weights end shorter with {shorter}."
    return replace(curves(f"Norm of the weights: {run.arm.name}", see, lines, y="norm of all weights", log=False), wide=False)


def judge(runs: Sequence[Curves]) -> str:
    """In which arms L2 and weight decay were the same."""
    same = [_apart(run) for run in runs if max(run.also["distance"]) < EQUAL]
    differ = [_apart(run) for run in runs if max(run.also["distance"]) >= EQUAL]
    said = [f"are the same for {listed(same)}"] if same else []
    said += [f"part for {listed(differ)}"] if differ else []
    return f"L2 in the loss and weight decay {'; they '.join(said)}."


def _apart(run: Curves) -> str:
    end = run.also["distance"][-1]
    apart = f"{max(run.also['distance']):.0e} at most" if end < EQUAL else f"{end:.1%} apart at the end"
    return f"{run.arm.model} {run.arm.how} ({apart})"


LAB = Lab(
    name="decay",
    title="L2 in the loss and weight decay, and what clipping sees of them",
    about=(
        f"Twins of {HIDDEN} hidden units learn a wavy function of {INPUTS} numbers, in double precision: one with L2 of "
        f"strength λ = {LAMBDA} in its loss, one whose weights shrink by β = α·λ at each step, where α is the learning rate. "
        "The loss below is the squared error alone, without the penalty; the gradient norms are those of the twin with L2."
    ),
    arms=(
        Arm("SGD", 0.05), Arm("SGD", 0.05, "global_norm:0.3"),
        Arm("Adam", 0.005), Arm("Adam", 0.005, "global_norm:0.3"),
    ),
    train=train,
    steps=600,
    score=lambda curves: last_mean(curves.losses),
    score_name="squared error",
    loss_name="squared error",
    columns={
        "twins apart": lambda run: f"{run.also['distance'][-1]:.1e}",
        "median norm of the twin": lambda run: number(sorted(run.also["norm of the twin"])[len(run.losses) // 2]),
    },
    pictures=pictures,
    judge=judge,
)  # fmt: skip
