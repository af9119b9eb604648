"""Each wiring mistake in a real training, and its twin that does it right."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.diagnosis import wiring_loops
from tests.diagnosis.support import findings, recorded_training
from tests.diagnosis.wiring_loops import RIGHT, WRONG, amp, two_under_one_scaler


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_gives_nothing(name, tmp_path):
    assert findings(recorded_training(tmp_path, RIGHT[name]), "wiring") == []


@pytest.mark.parametrize(("name", "train"), [(name, train) for name, many in WRONG.items() for train in many])
def test_what_is_wrong_is_found(name, train, tmp_path):
    assert [one.name for one in findings(recorded_training(tmp_path, train), "wiring")] == [name]


def test_each_optimizer_is_told_of(tmp_path):
    found = findings(recorded_training(tmp_path, two_under_one_scaler(wrong=True)), "wiring")
    assert [(one.name, one.optimizer) for one in found] == [("clip-before-unscale", 0), ("clip-before-unscale", 1)]
    assert all("65" not in one.symptom.sentence for one in found)


def test_what_is_told(tmp_path):
    (one,) = findings(recorded_training(tmp_path, amp(wrong=True)), "wiring")
    symptom = one.symptom
    assert (symptom.severity, symptom.confidence) == ("error", "certain")
    assert "loss scale (1,024)" in symptom.sentence
    assert "0.1 acts like 9.77e-05" in symptom.sentence
    assert symptom.where.endswith(f"wiring_loops.py:{_line_of('clip(s.model.parameters(), limit)')}")
    assert "scaler.unscale_(optimizer)" in symptom.fix


def _line_of(code):
    lines = Path(wiring_loops.__file__).read_text().splitlines()
    return 1 + next(i for i, line in enumerate(lines) if code in line)
