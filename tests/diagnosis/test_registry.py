"""What every check has: a manual page, a place in the ranking, words and JSON."""

from __future__ import annotations

import json
import math
import re

import pytest

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Finding, Symptom
from gradclip.diagnosis.manual import SECTIONS, Manual
from gradclip.diagnosis.ranking import check
from gradclip.diagnosis.readings.run_data import read_run
from gradclip.diagnosis.registry import CHECKS, FAMILIES, Check
from gradclip.runs import Run
from tests.diagnosis.runs import recorded


def fake(name="a-fault", family="wiring", severity="warning", confidence="likely", **changes):
    symptom = Symptom(severity, f"{name} was seen.", (), "mend()", confidence, **changes)
    return Check(name, family, lambda run, optimizer: [symptom], Manual(name, "A fault.", {}))


@pytest.fixture
def run(tmp_path):
    path = recorded(tmp_path / "a.gradclip", [[1.0, 2.0]] * 30)
    with Run.open(path) as opened:
        return read_run(opened)


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_has_a_whole_manual_page(name):
    manual = CHECKS[name].manual
    assert manual.what.endswith(".")
    assert len(manual.what) < 160
    assert tuple(manual.sections) == SECTIONS
    assert all(manual.sections.values())
    assert all(re.search(r"https://\S+", line) for line in manual.sections["References"].splitlines() if line.startswith("- "))
    for part in ("Wrong", "Right"):
        compile(manual.sections[part], f"{name}: {part}", "exec")


def test_a_check_s_place_is_its_name():
    assert {check.family for check in CHECKS.values()} <= set(FAMILIES)
    for name, one in CHECKS.items():
        assert one.detect.__module__ == f"gradclip.diagnosis.findings.{one.family}.{name.replace('-', '_')}"


def test_nothing_is_found_in_a_run_without_steps(tmp_path):
    path = recorded(tmp_path / "empty.gradclip", [], names=["w"])
    with Run.open(path) as opened:
        assert check(read_run(opened)) == []


def test_the_gravest_and_surest_come_first_and_wiring_before_numbers(run):
    checks = [
        fake("note", severity="note", confidence="certain"),
        fake("unsure", severity="error", confidence="possible"),
        fake("numbers", "explosion", severity="error", confidence="certain"),
        fake("calls", "wiring", severity="error", confidence="certain"),
        fake("warning"),
    ]
    assert [finding.name for finding in check(run, checks)] == ["calls", "numbers", "unsure", "warning", "note"]


def test_every_optimizer_is_looked_at(tmp_path):
    first = recorded(tmp_path / "a.gradclip", [[1.0]] * 3, status=None)
    del first
    from gradclip.runs import RunWriter

    writer = RunWriter(tmp_path / "b.gradclip", {"title": "two"})
    recorded(writer.path, [[1.0]] * 3, writer=writer, status=None)
    recorded(writer.path, [[1.0]] * 3, writer=writer, optimizer=1)
    with Run.open(writer.path) as opened:
        found = check(read_run(opened), [fake()])
    assert [finding.optimizer for finding in found] == [0, 1]


def test_json_holds_everything_and_no_number_that_json_does_not_know():
    evidence = (Evidence("norm", math.inf, 2.0, 3, "w"), Evidence("loss", math.nan))
    finding = Finding(fake(), 1, Symptom("error", "It broke.", evidence, "mend()", "certain", "train.py:3"))
    told = json.loads(json.dumps(finding.to_json(), allow_nan=False))
    assert told == {
        "name": "a-fault", "family": "wiring", "optimizer": 1, "severity": "error", "confidence": "certain",
        "sentence": "It broke.", "where": "train.py:3", "fix": "mend()",
        "evidence": [
            {"what": "norm", "value": "inf", "limit": 2.0, "step": 3, "tensor": "w"},
            {"what": "loss", "value": "NaN", "limit": None, "step": None, "tensor": ""},
        ],
    }  # fmt: skip


def test_a_manual_page_as_markdown_marks_code_and_as_text_indents_it():
    manual = Manual.parse(
        "x", "A fault.\n\nWhy it is bad:\n    ``It`` hurts.\n\nWrong:\n    a()\n\n    b()\n\nReferences:\n    - https://x.y\n"
    )
    assert manual.to_markdown() == (
        "### x\n\nA fault.\n\n**Why it is bad.** `It` hurts.\n\n**Wrong**\n\n```python\na()\n\nb()\n```\n\n**References**\n\n- https://x.y"
    )
    assert "Wrong:\n    a()\n\n    b()" in str(manual)
