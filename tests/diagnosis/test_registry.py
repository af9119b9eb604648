"""What every check has: a manual page, a place in the ranking, words and JSON."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest

from gradclip.diagnosis.evidence import Evidence
from gradclip.diagnosis.finding import Finding, Symptom
from gradclip.diagnosis.manual import SECTIONS, Manual
from gradclip.diagnosis.ranking import check
from gradclip.diagnosis.readings.run_data import read_run
from gradclip.diagnosis.registry import CHECKS, FAMILIES, Check
from gradclip.runs import Run
from tests.diagnosis.runs import recorded


def fake(name="a-fault", family="wiring", severity="warning", confidence="likely", explains=(), **changes):
    symptom = Symptom(severity, f"{name} was seen.", (), "mend()", confidence, **changes)
    return Check(name, family, lambda run, optimizer: [symptom], Manual(name, "A fault.", {}), explains)


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


def test_a_cause_stands_before_its_effects_which_advise_to_mend_it_first(run):
    checks = [
        fake("effect", severity="warning", confidence="certain"),
        fake("other", severity="warning", confidence="certain", family="threshold"),
        fake("between", explains=("effect",), family="threshold"),
        fake("cause", confidence="possible", explains=("between", "effect"), family="threshold"),
    ]
    found = check(run, checks)
    assert [one.name for one in found] == ["cause", "effect", "between", "other"]
    told = "# mend cause first: this may be nothing but its effect"
    assert [one.symptom.fix for one in found] == ["mend()", told, told, "mend()"]


def test_a_cause_ranks_as_its_gravest_effect(run):
    checks = [fake("effect", severity="error"), fake("cause", severity="note", explains=("effect",)), fake("other")]
    assert [one.name for one in check(run, checks)] == ["cause", "effect", "other"]


def test_a_cause_explains_nothing_of_another_optimizer(tmp_path):
    from gradclip.runs import RunWriter

    writer = RunWriter(tmp_path / "b.gradclip", {"title": "two"})
    recorded(writer.path, [[1.0]] * 3, writer=writer, status=None)
    recorded(writer.path, [[1.0]] * 3, writer=writer, optimizer=1)
    apart = [
        replace(fake("effect"), detect=lambda run, one: fake("effect").detect(run, one) if one.number else []),
        replace(
            fake("cause", explains=("effect",)), detect=lambda run, one: [] if one.number else fake("cause").detect(run, one)
        ),
    ]
    with Run.open(writer.path) as opened:
        assert [one.symptom.fix for one in check(read_run(opened), apart)] == ["mend()"] * 2


def test_what_a_check_explains_is_there():
    assert {name for one in CHECKS.values() for name in one.explains} <= set(CHECKS)
    assert all(name not in one.explains for name, one in CHECKS.items())


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
