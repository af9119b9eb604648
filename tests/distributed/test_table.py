"""docs/sharding.md says what happens, as it happens."""

from __future__ import annotations

import pytest
import torch

from tests.distributed import table


@pytest.fixture(scope="module")
def rows():
    return table.on_the_page().splitlines()[2:]


@pytest.mark.parametrize("number", range(len(table.CASES)), ids=[case.text[:40] for case in table.CASES])
def test_gradclip_is_right_and_the_page_says_so(ranks, rows, number):
    case = table.CASES[number]
    ours = table.seen(ranks, number, "gradclip")
    assert table.is_right(ours, case)
    _, text, right, _, said, how, _ = (cell.strip() for cell in rows[number].split("|"))
    assert (text, right, said, how) == (case.text, ours, ours, case.call)


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="the page speaks of torch 2.13")
@pytest.mark.parametrize("number", range(len(table.CASES)), ids=[case.text[:40] for case in table.CASES])
def test_torch_is_not_and_the_page_says_how(ranks, rows, number):
    case = table.CASES[number]
    theirs = table.seen(ranks, number, "torch")
    assert not table.is_right(theirs, case)
    assert rows[number].split("|")[3].strip() == theirs


def test_the_page_has_a_row_for_each_case(rows):
    assert len(rows) == len(table.CASES)
