"""Directions: what clipping does to the way a step points.

The LSTM of the lab ``lstm``, which adds up 50 numbers. Beside the loss, the angle between the gradient as it came out of
``backward()`` and as the optimizer gets it.

What to look at:

- clipping by the norm of all gradients together: the angle is 0 at every step; a long step is made shorter, not another one;
- clipping by value: every element above the threshold is cut to the same size, so that the step turns towards a corner;
- clipping tensor by tensor bends as well, for the tensors are shortened by different factors.

A bent step still goes down, for the angle stays below 90 degrees: no element changes its sign.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from gradclip.labs import lstm
from gradclip.labs.lab import Arm, Curves, Lab, Values
from gradclip.labs.pictures import listed, middle
from gradclip.report.charts import COLOURS, MUTED, Chart, Line, curves

# --- the angle --------------------------------------------------------------------------------------------------------


def gradient(model: nn.Module) -> Tensor:
    """All gradients in one vector; 0 where there is none, which is what a step that was skipped leaves."""
    parameters = list(model.parameters())
    return torch.cat([(torch.zeros_like(each) if each.grad is None else each.grad).flatten() for each in parameters])


def angle(one: Tensor, other: Tensor) -> float:
    """The angle between two vectors in degrees; NaN where one of them is 0.

    The half angle has the difference and the sum of the unit vectors as its sides, which stays exact where the cosine, close
    to 1, does not (Kahan 2006).

    >>> angle(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 2.0]))
    45.0
    """
    one, other = one.double() / one.double().norm(), other.double() / other.double().norm()
    return round(math.degrees(2 * math.atan2(float((one - other).norm()), float((one + other).norm()))), 6)


# --- training ---------------------------------------------------------------------------------------------------------


def train(arm: Arm, steps: int, seed: int) -> Iterator[Values]:
    """Train one arm as in ``lstm``, and measure how far clipping turns each step."""
    return lstm.train(arm, steps, seed, clip=turning)


def turning(model: nn.Module, arm: Arm) -> Values:
    """Clip, and measure the angle between the gradients before and after."""
    before = gradient(model)
    lstm.plainly(model, arm)
    return {"angle": angle(before, gradient(model))}


# --- picture and verdict ----------------------------------------------------------------------------------------------


def turned(curves: Curves) -> list[float]:
    """The angles of the steps that were clipped."""
    return [bent for bent, clipped in zip(curves.also["angle"], curves.clipped, strict=True) if clipped]


def typical(curves: Curves) -> str:
    """The median angle of the clipped steps, for a table."""
    return f"{middle(turned(curves)):.1f}°" if turned(curves) else "–"


def largest(curves: Curves) -> str:
    """The largest angle, for a table."""
    return f"{max(turned(curves)):.1f}°" if turned(curves) else "–"


def pictures(runs: Sequence[Curves]) -> list[Chart]:
    """The angle of every step."""
    clipped = [run.arm for run in runs if run.arm.clips]
    colours = {arm: COLOURS[i % len(COLOURS)] for i, arm in enumerate(clipped)}
    lines = [
        Line(run.arm.method, run.also["angle"], colours.get(run.arm, MUTED), dashed=not run.arm.clips, marked=False)
        for run in runs
    ]
    see = (
        "At 0 a step points where the gradient points. The norm of all gradients together keeps it there at every step; "
        "elements and tensors clipped on their own turn it."
    )
    return [
        curves(
            "The angle between the gradient and what clipping made of it",
            see,
            lines,
            y="angle in degrees",
            log=False,
            smooth=10,
        )
    ]


def judge(runs: Sequence[Curves]) -> str:
    """Which methods keep the direction, and how far the others bend it."""
    clipped = [run for run in runs if turned(run)]
    keeps = [run.arm.clip for run in clipped if max(turned(run)) < EXACT]
    bends = [f"{run.arm.clip} ({typical(run)}, at most {largest(run)})" for run in clipped if max(turned(run)) >= EXACT]
    said = [f"is kept at every step by {listed(keeps)}"] if keeps else []
    said += [f"is bent at the median clipped step by {listed(bends)}"] if bends else []
    return f"The direction of the gradient {'; it '.join(said)}." if said else "No step was clipped, so that none was bent."


EXACT = 0.001
"""Degrees; the rounding of single precision bends by less."""

LAB = Lab(
    name="directions",
    title="Where a clipped step points",
    about=(
        f"An LSTM reads {lstm.LENGTH} numbers from N(0, 1) and must give their sum, with plain SGD and {lstm.BATCH} sequences "
        "a step. Each arm clips in another way; the angle is that between the gradient before and after, all parameters "
        "together."
    ),
    arms=(
        Arm("LSTM", 0.1),
        *(Arm("LSTM", 0.1, clip) for clip in ("global_norm:10.0", "tensor_norm:3.0", "value:1.0", "agc:0.1")),
    ),
    train=train,
    steps=400,
    score=lstm.squared_error,
    score_name="squared error",
    loss_name="squared error",
    columns={"median angle": typical, "largest angle": largest},
    pictures=pictures,
    judge=judge,
)
