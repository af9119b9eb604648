"""Schedules against the formulas of their papers and PyTorch's own schedulers; the split of weight decay."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from gradclip import schedules


def rates(build, steps, lrs=(1.0, 0.1)):
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs]
    optimizer = torch.optim.SGD(groups)
    scheduler = build(optimizer)
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return seen


def test_step_is_torchs():
    ours = rates(lambda o: schedules.step(o, [3, 7], 0.5), 10)
    assert ours == rates(lambda o: lr_scheduler.MultiStepLR(o, [3, 7], 0.5), 10)


def test_warmup_is_a_line_to_the_full_rate():
    for first, second in zip(rates(lambda o: schedules.warmup(o, 5), 8), (0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1), strict=True):
        assert first == pytest.approx([second, 0.1 * second])
    assert rates(lambda o: schedules.warmup(o, 4, start=0.4), 5)[0][0] == pytest.approx(0.4)
    assert rates(lambda o: schedules.warmup(o, 1), 2) == [[1.0, 0.1], [1.0, 0.1]]


def test_cosine_is_torchs_until_its_end_and_then_holds():
    ours = rates(lambda o: schedules.cosine(o, 10), 15, lrs=(1.0,))
    theirs = rates(lambda o: lr_scheduler.CosineAnnealingLR(o, 10), 10, lrs=(1.0,))
    assert [r for (r,) in ours[:10]] == pytest.approx([r for (r,) in theirs])
    assert [r for (r,) in ours[10:]] == pytest.approx([0.0] * 5)


def test_warmup_cosine_as_gpt3():
    seen = rates(lambda o: schedules.warmup_cosine(o, 10, 100), 120)
    for at, (one, tenth) in enumerate(seen):
        progress = min(1, max(0, (at - 10) / 90))
        want = (at + 1) / 10 if at < 10 else 0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2
        assert one == pytest.approx(want)
        assert tenth == pytest.approx(0.1 * want)


def test_cyclic_is_a_triangle():
    seen = [r for (r,) in rates(lambda o: schedules.cyclic(o, 0.2, 4), 17, lrs=(1.0,))]
    assert seen == pytest.approx([1 - 0.2 * abs(4 - at % 8) for at in range(17)])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda o: schedules.step(o, [5, 3]), r"must grow: write \[3, 5\]"),
        (lambda o: schedules.step(o, [0]), "a milestone is a whole number of steps >= 1"),
        (lambda o: schedules.step(o, [1], 0), "the factor must be between 0 and 1"),
        (lambda o: schedules.warmup(o, 0), "the warm-up is a whole number"),
        (lambda o: schedules.warmup(o, 5, start=1.5), "between 0 and 1"),
        (lambda o: schedules.cyclic(o, 2.0, 5), "below the learning rate, not 2"),
        (lambda o: schedules.cosine(o, 2.5), "the schedule is a whole number"),
        (lambda o: schedules.warmup_cosine(o, 10, 10), "a warm-up of 10 steps leaves none of 10"),
    ],
)
def test_nonsense_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        rates(build, 1)


def test_decay_groups():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 5))
    model[3].weight = model[0].weight
    model[1].bias.requires_grad_(False)
    decaying, plain = schedules.decay_groups(model, 0.1)
    assert [name for name, _ in decaying["params"]] == ["0.weight", "1.weight"]
    assert [name for name, _ in plain["params"]] == ["2.weight", "2.bias", "3.bias"]
    assert (decaying["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    optimizer = torch.optim.AdamW([decaying, plain])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 5
    with pytest.raises(ValueError, match="weight decay must be >= 0"):
        schedules.decay_groups(model, -1)
