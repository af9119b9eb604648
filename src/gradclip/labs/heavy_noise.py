"""Heavy-tailed noise: gradients that are now and then wrong by an enormous amount (arXiv 2605.11838).

A ReLU net of three layers learns y = x0 * x1 * x2 from 100 numbers. At one step in ten, noise of rank one is added to the
gradient of every matrix: a random direction, of a length from a Pareto distribution with tail index 1.1 and scale 5, whose
variance is infinite and whose mean barely exists.

What to look at:

- without clipping one such step is enough: the loss is no number any more after a few hundred steps;
- every method that clips survives; they differ in how much of the true gradient they let through. A low threshold for all
  together spends the step on the noise of one matrix; one for each tensor, or a higher one, keeps more of it;
- how much the runs of one method differ: the net waits on a plateau (always answering 0 costs 1), and leaves it some day.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn

from gradclip import attach
from gradclip.labs.lab import UNCLIPPED, Arm, Curves, Lab, Values, grouped, number
from gradclip.labs.pictures import listed
from gradclip.report.charts import COLOURS, MUTED, Chart, Line, curves
from gradclip.report.table import Table

INPUTS, WIDTH, BATCH, VALIDATION = 100, 100, 32, 2000
MOMENTUM, SHARE, TAIL, SCALE = 0.9, 0.1, 1.1, 5.0
EVERY = 50
"""How often the net is validated."""
RUNS = (1, 2, 3)

# --- data -------------------------------------------------------------------------------------------------------------


def batch(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points of shape (size, inputs) and the product of their first three numbers, of shape (size,)."""
    points = torch.randn(size, INPUTS, generator=generator)
    return points, points[:, :3].prod(dim=1)


def pareto(generator: torch.Generator) -> Tensor:
    """A length above ``SCALE``; longer than t with probability (SCALE / t) ** TAIL."""
    return SCALE * (1 - torch.rand((), generator=generator)) ** (-1 / TAIL)


def add_noise(model: nn.Module, generator: torch.Generator) -> None:
    """Add an outer product of two random directions, of Pareto length, to the gradient of each matrix."""
    for parameter in model.parameters():
        assert parameter.grad is not None
        rows, columns = (torch.randn(size, generator=generator) for size in parameter.shape)
        parameter.grad.add_(pareto(generator) * torch.outer(rows / rows.norm(), columns / columns.norm()))


# --- model ------------------------------------------------------------------------------------------------------------


def net() -> nn.Sequential:
    """Three layers of ReLUs without biases, and a linear one."""
    hidden = [layer for _ in range(3) for layer in (nn.Linear(INPUTS, WIDTH, bias=False), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(WIDTH, 1, bias=False), nn.Flatten(0))


# --- training ---------------------------------------------------------------------------------------------------------


def train(arm: Arm, steps: int, seed: int) -> Iterator[Values]:
    """Train one run; weights, batches and noise depend on ``seed`` plus its number alone, so that all methods see the same."""
    torch.manual_seed(seed + arm.run)
    generator = torch.Generator().manual_seed(seed + arm.run)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=arm.lr, momentum=MOMENTUM)
    if arm.clips:
        attach(optimizer, arm.clip, parameters=model)
    validation = batch(VALIDATION, generator)
    error = validated(model, *validation)
    for step in range(1, steps + 1):
        points, values = batch(BATCH, generator)
        loss = F.mse_loss(model(points), values)
        optimizer.zero_grad()
        loss.backward()
        if torch.rand((), generator=generator) < SHARE:
            add_noise(model, generator)
        optimizer.step()  # clips inside
        if step % EVERY == 0 or step == steps:
            error = validated(model, *validation)
        yield {"loss": loss.item(), "validation": error}


@torch.no_grad()
def validated(model: nn.Module, points: Tensor, values: Tensor) -> float:
    """The squared error on points that are not trained on."""
    return F.mse_loss(model(points), values).item()


# --- table, picture and verdict ---------------------------------------------------------------------------------------


def error(curves: Curves) -> float:
    """The squared error on the validation points at the end; NaN for a run that diverged."""
    return math.nan if curves.note else curves.also["validation"][-1]


def by_method(runs: Sequence[Curves]) -> dict[str, list[Curves]]:
    """The runs of each method."""
    return grouped(runs, lambda arm: arm.method)


def table(runs: Sequence[Curves]) -> Table:
    """One row per method: its mean error, its best and worst run, and when runs diverged."""
    columns = ("method", "mean squared error", "best run", "worst run", "steps clipped", "diverged")
    rows = [(method, *_row(same)) for method, same in by_method(runs).items()]
    notes = [f"{run.arm.name}: {run.note}." for run in runs if run.note]
    return Table("One row per method", columns, rows, frozenset(range(1, 6)), notes)


def _row(runs: Sequence[Curves]) -> tuple[str, ...]:
    errors = [error(run) for run in runs]
    ends = [number(fmean(errors)), number(min(errors)), number(max(errors))] if all(map(math.isfinite, errors)) else ["–"] * 3
    lost = sum(not math.isfinite(each) for each in errors)
    return (*ends, f"{fmean(run.share_clipped for run in runs):.1%}", f"{lost} of {len(runs)}")


def pictures(runs: Sequence[Curves]) -> list[Chart]:
    """The validation error of every run, one name in the legend for each method."""
    clipping = [method for method in by_method(runs) if method != "no clipping"]
    colours = {"no clipping": MUTED, **{method: COLOURS[i % len(COLOURS)] for i, method in enumerate(clipping)}}
    lines = [
        Line(run.arm.method, run.also["validation"], colours[run.arm.method], dashed=not run.arm.clips, marked=False)
        for run in runs
    ]
    see = (
        "Always answering 0 costs 1: runs wait there, and fall when they have found the product. One colour for each method, a "
        "line for each run; without clipping the lines end early."
    )
    chart = curves("Error on new points", see, lines, y="squared error", log=True)
    named: set[str] = set()
    for trace in chart.figure["data"]:
        trace["showlegend"] = trace["name"] not in named
        named.add(trace["name"])
    return [chart]


def judge(runs: Sequence[Curves]) -> str:
    """Who diverged, and the mean error of the others."""
    said, means = [], {}
    for method, same in by_method(runs).items():
        lost = [run for run in same if not math.isfinite(error(run))]
        if lost:
            at = listed([str(len(run.losses)) for run in lost])
            said.append(f"{len(lost)} of {len(same)} runs diverge {lost[0].arm.how} (at step {at})")
        else:
            means[method] = fmean(map(error, same))
    ranked = [f"{number(means[method])} with {method}" for method in sorted(means, key=means.__getitem__)]
    said += [f"the mean error is {listed(ranked)}"] if ranked else []
    return f"Under heavy-tailed noise, {'; '.join(said)}."


LAB = Lab(
    name="heavy-noise",
    title="Heavy-tailed noise, where nothing but clipping lets SGD learn",
    about=(
        f"A ReLU net of 3 × {WIDTH} units without biases learns the product of the first 3 of {INPUTS} numbers, with SGD at "
        f"momentum {MOMENTUM} and {BATCH} points a step; at one step in ten, noise of rank one and of Pareto({TAIL}) length "
        f"from {SCALE:g} up is added to every gradient matrix (arXiv 2605.11838). The error is that on {VALIDATION:,} other "
        "points; always answering 0 costs 1."
    ),
    arms=tuple(
        Arm("net", 0.01, clip, run)
        for clip in (
            UNCLIPPED,
            "global_norm:1.0",
            "global_norm:5.0",
            "tensor_norm:1.0",
            "quantile:0.85,window=100,per_tensor=true",
        )
        for run in RUNS
    ),
    train=train,
    steps=4000,
    score=error,
    score_name="squared error on new points",
    loss_name="squared error",
    table=table,
    pictures=pictures,
    judge=judge,
    detailed=lambda arm: arm.run == 1 and arm.clip in (UNCLIPPED, "tensor_norm:1.0"),
)
