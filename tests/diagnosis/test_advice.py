"""What the checks advise can be copied as it is."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from gradclip.diagnosis.advice.threshold_fix import clip_fix, script_of
from gradclip.diagnosis.readings.run_data import read_run
from gradclip.runs import Run
from tests.diagnosis.runs import recorded


@pytest.mark.parametrize(
    ("command", "script"),
    [
        (["python", "train.py", "--lr", "1 0"], "train.py --lr '1 0'"),
        (["python", "-B", "-W", "error", "-Xdev", "-X", "utf8", "a b.py"], "'a b.py'"),
        (["python", "-u", "-m", "package", "-x"], "-m package -x"),
        (["python", "-c", "import torch"], "train.py"),
        (["pytest", "tests"], "train.py"),
        (["python"], "train.py"),
        ([], "train.py"),
        (None, "train.py"),
    ],
)
def test_the_script_behind_python_and_its_options(command, script):
    assert script_of(SimpleNamespace(meta={"command": command})) == script


@pytest.mark.parametrize(("threshold", "advised"), [(None, "2.1"), (5.0, "2.1"), (1.5, "0.75"), (2.0, "1")])
def test_the_advice_is_below_what_was_in_force_already(tmp_path, threshold, advised):
    """Sound norms near 1, twice whose 99th percentile is 2.1; a threshold that acts at every fifth step."""
    rows = [[1.0 + 0.01 * (step % 7) + (4.5 if step % 5 == 0 and threshold else 0.0)] for step in range(200)]
    with Run.open(recorded(tmp_path / "a.gradclip", rows, threshold=threshold)) as run:
        data = read_run(run)
    steps = data.optimizers[0].steps
    quiet = replace(data.optimizers[0], steps=replace(steps, norm=np.minimum(steps.norm, 1.06)))
    assert f"gradclip run --clip global_norm:{advised} " in clip_fix(data, quiet, 150)
