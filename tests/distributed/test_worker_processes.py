"""The processes themselves: a rank that raises or hangs fails its test, with its name."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from tests.distributed.ranks import RanksError


def _sum() -> float:
    number = torch.tensor(float(dist.get_rank() + 1))
    dist.all_reduce(number)
    return float(number)


def _one_raises() -> None:
    if dist.get_rank() == 1:
        raise ValueError("this one")


def test_calls(ranks):
    assert ranks(4, _sum) == [10.0] * 4
    assert ranks(2, _sum) == [3.0] * 2


def test_a_hanging_rank_is_named(ranks):
    with pytest.raises(RanksError, match=r"(?s)rank 1 hangs:.*all_reduce"):
        ranks(2, _one_waits_for_nobody_ever, timeout=2.0)
    assert ranks(2, _sum) == [3.0] * 2


def _one_waits_for_nobody_ever() -> None:
    """The other rank keeps its end open, so that nothing tells the first."""
    if dist.get_rank() == 1:
        dist.all_reduce(torch.ones(1))
    else:
        import time

        time.sleep(30)


def test_a_rank_that_raises_is_named(ranks):
    with pytest.raises(RanksError, match=r"(?s)rank 1 of 2 raised.*this one"):
        ranks(2, _one_raises)
