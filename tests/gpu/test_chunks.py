"""How tensors are cut: every element in exactly one chunk, every cell in exactly one slot or joined from its parts."""

from __future__ import annotations

import numpy as np
import pytest

from gradclip.backends.chunks import CHUNK, TILE, cut

CASES = {
    "tensors": ([0, 1, 2, 0, 1], [5, TILE, CHUNK, CHUNK + 1, 5 * CHUNK - 7], [1, 1, 1, 1, 1]),
    "nothing": ([0, 0], [0, 0], [1, 0]),
    "units of all lengths": (
        [0] * 8,
        [3 * 7, 100, 17 * 64, 9 * 1000, 2 * TILE, 3 * (TILE + 1), 2 * (CHUNK + 5), 0],
        [3, 100, 17, 9, 2, 3, 2, 4],
    ),
    "many": ([0, 1] * 500, list(range(1000)), [1] * 1000),
}


@pytest.mark.parametrize("case", CASES)
def test_every_element_belongs_to_one_slot_and_every_slot_to_one_cell(case):
    kinds, counts, cells = CASES[case]
    found = cut(kinds, counts, cells)
    seen = [np.zeros(count, dtype=int) for count in counts]
    cell_of_slot = {}
    first = np.cumsum(cells) - cells
    for width, lines in found.chunks.items():
        for tensor, kind, offset, runs, each, cell, slot, _ in lines:
            assert kind == kinds[tensor]
            assert runs <= TILE // width
            assert each <= (width if runs > 1 else CHUNK)
            start = offset // (4 if kind == 0 else 2)
            seen[tensor][start : start + runs * each] += 1
            for run in range(runs):
                if each:
                    assert cell + run == first[tensor] + (start + run * each) // (counts[tensor] // cells[tensor])
                assert slot + run not in cell_of_slot
                cell_of_slot[slot + run] = cell + run
    assert all((count == 1).all() for count in seen)
    for cell, slot, count, _ in found.joins:
        assert {cell_of_slot.pop(slot + i) for i in range(count)} == {cell}
        cell_of_slot[cell] = cell
    assert cell_of_slot == {cell: cell for cell in range(sum(cells))}
    assert found.cells == sum(cells)
    assert found.slots == found.cells + found.joins[:, 2].sum()


def test_one_table_for_all_tensors_whatever_their_sizes_and_dtypes():
    assert list(cut([0, 1, 2], [5, 10**6, 0], [1, 1, 1]).chunks) == [TILE]


def test_cutting_many_tensors_makes_no_python_loop_over_chunks():
    """A billion elements: the table is some megabytes, and it is there at once."""
    found = cut([1] * 1000, [10**6] * 1000, [1] * 1000)
    assert len(found.chunks[TILE]) == 1000 * -(-(10**6) // CHUNK)
