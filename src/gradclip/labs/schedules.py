"""Schedules: what the learning rate's course does to the gradients, with and without clipping.

The character model of the lab ``charlm``, an LSTM at a learning rate of 20, which its first steps throw away unless they are
clipped. Each arm has the same highest rate and another course: constant, step decay, a warm-up, a cycle, a cosine, and a
warm-up followed by a cosine, as GPT-3 was trained.

What to look at:

- the courses themselves, all from ``gradclip.schedules``;
- the gradient norms without clipping, beside those with it, measured before they are clipped;
- the scores: where a warm-up alone is enough, and where it only puts off what clipping prevents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from gradclip import attach, schedules
from gradclip.labs import charlm
from gradclip.labs.lab import UNCLIPPED, Arm, Curves, Pair, Values, paired
from gradclip.report.charts import COLOURS, Chart, Line, curves

Optimizer = torch.optim.Optimizer
SCHEDULES: dict[str, Callable[[Optimizer, int], LRScheduler]] = {
    "constant": lambda optimizer, steps: LambdaLR(optimizer, lambda at: 1.0),
    "step decay": lambda optimizer, steps: schedules.step(optimizer, [steps // 2, 3 * steps // 4], factor=0.3),
    "warm-up": lambda optimizer, steps: schedules.warmup(optimizer, steps // 4),
    "cyclic": lambda optimizer, steps: schedules.cyclic(optimizer, optimizer.param_groups[0]["lr"] / 10, steps // 8),
    "cosine": schedules.cosine,
    "warm-up + cosine": lambda optimizer, steps: schedules.warmup_cosine(optimizer, steps // 4, steps),
}
SHORTEST = 8
"""A schedule needs so many steps to have all its parts."""

# --- training ---------------------------------------------------------------------------------------------------------


def train(arm: Arm, steps: int, seed: int) -> Iterator[Values]:
    """Train one arm as in ``charlm``, with the schedule that its name says."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    data = charlm.encoded()
    model = charlm.CharModel("LSTM")
    optimizer = torch.optim.SGD(model.parameters(), lr=arm.lr)
    scheduler = SCHEDULES[arm.model](optimizer, max(SHORTEST, steps))
    if arm.clips:
        attach(optimizer, arm.clip, parameters=model)
    for _ in range(steps):
        characters, following = charlm.batch(data, generator)
        loss = F.cross_entropy(model(characters).flatten(0, 1), following.flatten())
        optimizer.zero_grad()
        loss.backward()
        (rate,) = scheduler.get_last_lr()
        optimizer.step()  # clips inside
        scheduler.step()
        yield {"loss": loss.item(), "rate": float(rate)}


# --- pictures and verdict ---------------------------------------------------------------------------------------------

COLOUR = dict(zip(SCHEDULES, COLOURS, strict=True))


def pictures(runs: Sequence[Curves]) -> list[Chart]:
    """The rates, then norms and losses without clipping beside those with it."""
    each = {run.arm.model: run for run in runs}
    rates = [Line(name, run.also["rate"], COLOUR[name]) for name, run in each.items()]
    see = "Six courses below the same highest rate, one colour each, the same in all pictures."
    return [
        curves("The learning rate", see, rates, y="learning rate", log=False),
        *_beside("Gradient norm", runs, lambda run: run.norms, "gradient norm before clipping"),
        *_beside("Loss", runs, lambda run: run.losses, charlm.LAB.loss_name),
    ]


SEE = {
    False: "All six, none clipped; means of 10 steps, on the axis of the picture beside it.",
    True: "The same six, with clipping.",
}


def _beside(title: str, runs: Sequence[Curves], values: Callable[[Curves], Sequence[float]], y: str) -> list[Chart]:
    """The arms without clipping beside those with it, on one axis."""
    lines = {run.arm: Line(run.arm.model, values(run), COLOUR[run.arm.model]) for run in runs}
    axis = curves(title, "", list(lines.values()), y=y, log=True).figure["layout"]["yaxis"]
    drawn = []
    for clips in dict.fromkeys(run.arm.clips for run in runs):
        some = [line for arm, line in lines.items() if arm.clips == clips]
        words = f"{title}, {'with' if clips else 'without'} clipping"
        chart = replace(curves(words, SEE[clips], some, y=y, log=True, smooth=10), wide=False)
        chart.figure["layout"]["yaxis"] = axis
        drawn.append(chart)
    return drawn


def judge(runs: Sequence[Curves]) -> str:
    """How many schedules clipping helped, where most and where least, and the best of all."""
    pairs = sorted(paired(runs), key=_ratio)
    best = min(runs, key=charlm.bits_per_character)
    end = f"the best of all is {best.arm.model} {best.arm.how} ({charlm.bits(best)})"
    if not pairs:
        return f"In bits per character, {end}."
    helped = sum(_ratio(pair) < 1 for pair in pairs)
    return (
        f"Clipping lowers the bits per character of {helped} of {len(pairs)} schedules, most under {_change(pairs[0])} and "
        f"least under {_change(pairs[-1])}; {end}."
    )


def _ratio(pair: Pair) -> float:
    """The score with clipping as a share of that without; 0 where only clipping kept the loss a number."""
    ratio = charlm.bits_per_character(pair.clipped) / charlm.bits_per_character(pair.without)
    return 0.0 if math.isnan(ratio) else ratio


def _change(pair: Pair) -> str:
    return f"{pair.clipped.arm.model} ({charlm.bits(pair.without)} to {charlm.bits(pair.clipped)})"


LAB = replace(
    charlm.LAB,
    name="schedules",
    title="Schedules of the learning rate, with and without clipping",
    about=(
        f"{charlm.LAB.about} Here an LSTM at a highest learning rate of 20, under six schedules built with gradclip.schedules; "
        "the warm-ups take a quarter of the steps."
    ),
    arms=tuple(Arm(name, 20.0, clip) for name in SCHEDULES for clip in (UNCLIPPED, "global_norm:0.25")),
    train=train,
    steps=200,
    pictures=pictures,
    judge=judge,
    detailed=lambda arm: False,
)
