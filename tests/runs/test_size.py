"""A long run of a large model fits into a file that one can send, as large as docs/run-file.md says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.file_size import STEPS, TENSORS, recorded_bytes

DOCUMENTED = re.search(
    r"(\d+) tensors x ([\d,]+) steps.* take about (\d+) MB.* about (\d+) MB",
    (Path(__file__).parents[2] / "docs" / "run-file.md").read_text(),
    re.DOTALL,
)


@pytest.mark.parametrize(("each", "megabytes"), [(False, 3), (True, 4)])
def test_a_run_file_is_as_large_as_documented(tmp_path, each, megabytes):
    assert DOCUMENTED
    assert (int(DOCUMENTED[1]), int(DOCUMENTED[2].replace(",", ""))) == (TENSORS, STEPS)
    few, more = (recorded_bytes(tmp_path, steps, each=each) for steps in (1000, 5000))
    per_step = (more - few) / 4000
    assert per_step > 4 * TENSORS * (1 + each)  # nothing was left out
    assert per_step * STEPS == pytest.approx(float(DOCUMENTED[megabytes]) * 1e6, rel=0.02)
