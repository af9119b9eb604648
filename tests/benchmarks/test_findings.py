"""The suite of sick and healthy scripts: what it reads, how it counts, and a few scripts for real."""

from __future__ import annotations

import random
import sys
from dataclasses import replace

import pytest
import torch

from benchmarks.findings import docs, suite
from benchmarks.findings.running import Found, Outcome, run
from benchmarks.findings.scores import Share, by_finding, parts, totals, untrue, verdict
from benchmarks.findings.scripts import Script, parse, scripts
from gradclip.diagnosis.registry import CHECKS

ALL = scripts()
SEEN, UNSEEN = ([script for script in ALL if script.unseen is unseen] for unseen in (False, True))
QUICK = (  # none that needs scikit-learn, which only the benchmark installs
    "sick/clip_exhausted_generator",
    "sick/clip_per_micro_batch_counter",
    "sick/nan_zero_by_zero",
    "sick/update_too_small_adam",
    "healthy/closure_adam",
    "healthy/five_steps",
    "healthy/grads_to_none_by_hand",
    "unseen/sick/angular_distance",
    "unseen/healthy/differential_equation",
)


def outcome(name, expects=(), also_fine=(), found=(), error=""):
    """What became of a made-up script; findings are spelled ``name:severity``."""
    told = tuple(Found(*each.split(":")) for each in found)
    return Outcome(Script(name, "A script.", tuple(expects), tuple(also_fine)), told, error)


MADE_UP = [
    outcome("sick/first", ["dead-layer"], found=["dead-layer:warning", "loss-spike:note"]),
    outcome("sick/second", ["dead-layer"], ["loss-spike"], ["loss-spike:warning", "dead-layer:note"]),
    outcome("sick/either", ["clipped-twice", "always-clipping"], found=["always-clipping:error", "never-clipping:warning"]),
    outcome("sick/companion", ["clipped-twice"], ["always-clipping"], ["always-clipping:warning"]),
    outcome("sick/nothing", ["clipped-twice"]),
    outcome("sick/wrong", ["clipped-twice"], found=["loss-spike:error", "loss-spike:error"]),
    outcome("sick/broken", ["clipped-twice"], error="NameError: x"),
    outcome("healthy/quiet"),
    outcome("healthy/noted", found=["loss-spike:note"]),
    outcome("healthy/alarm", found=["loss-spike:warning", "dead-layer:note"]),
]
VERDICTS = ["leads", "named", "leads", "missed", "missed", "missed", "broken", "quiet", "noted", "false alarm"]


def test_verdicts():
    assert [verdict(one) for one in MADE_UP] == VERDICTS


def test_totals():
    found = totals(MADE_UP)
    assert found.named == Share(3, 7)
    assert found.leading == Share(2, 5)
    assert found.leading_true == Share(4, 5)
    assert found.untrue == Share(2, 7)
    assert found.false_alarms == Share(1, 3)
    assert found.noted == Share(1, 3)
    assert found.broken == 1


def test_what_is_untrue_is_named_once():
    assert [untrue(one) for one in MADE_UP[:6]] == [(), (), ("never-clipping",), (), (), ("loss-spike",)]


def test_each_finding_counts_the_scripts_that_expect_it_first():
    rows = {row.name: row for row in by_finding(MADE_UP, ["dead-layer", "loss-spike", "clipped-twice", "always-clipping"])}
    assert (rows["dead-layer"].named, rows["dead-layer"].leading) == (Share(2, 2), 1)
    assert (rows["clipped-twice"].named, rows["clipped-twice"].leading) == (Share(1, 5), 1)
    assert rows["always-clipping"].named == Share(0, 0)
    assert (rows["loss-spike"].false_alarms, rows["loss-spike"].noted) == (1, 1)
    assert (rows["dead-layer"].false_alarms, rows["dead-layer"].noted) == (0, 1)


@pytest.mark.parametrize(
    ("name", "docstring", "wrong"),
    [
        ("sick/a", "", "needs a docstring"),
        ("sick/a", "A net.", "has a line 'Expects"),
        ("sick/a", "A net.\n\nExpects:\n", "has a line 'Expects"),
        ("healthy/a", "A net.\n\nExpects: dead-layer", "has a line 'Expects"),
        ("healthy/a", "A net.\n\nAlso fine: dead-layer", "leave 'Also fine' out"),
        ("unseen/sick/a", "A net.", "has a line 'Expects"),
        ("unseen/healthy/a", "A net.\n\nExpects: dead-layer", "has a line 'Expects"),
        ("sick/a", "A net.\n\nExpects: dead-layer\nAlso fine: loss-spike, dead-layer", "dead-layer both"),
    ],
)
def test_a_docstring_that_says_it_wrongly_is_refused(name, docstring, wrong):
    with pytest.raises(ValueError, match=wrong):
        parse(name, f'"""{docstring}"""\n' if docstring else "x = 1\n")


def test_a_docstring_is_read():
    said = '"""A net.\n\nExpects: dead-layer , loss-spike\nAlso fine: update-too-small\n"""\n'
    assert parse("sick/a", said) == Script("sick/a", "A net.", ("dead-layer", "loss-spike"), ("update-too-small",))
    assert parse("healthy/a", '"""A net.\n\nIt expects: nothing."""') == Script("healthy/a", "A net.")


@pytest.mark.parametrize(("part", "enough"), [(SEEN, 30), (UNSEEN, 22)], ids=["seen", "unseen"])
def test_there_are_enough_scripts(part, enough):
    sick = [script for script in part if script.sick]
    assert len(sick) >= enough
    assert len(part) - len(sick) >= enough


def test_no_two_scripts_are_said_to_be_the_same():
    assert len({script.what for script in ALL}) == len(ALL)


def test_a_script_is_named_as_its_file():
    assert [script.path.is_file() for script in ALL] == [True] * len(ALL)
    assert {script.name.rpartition("/")[0] for script in SEEN} == {"sick", "healthy"}
    assert {script.name.rpartition("/")[0] for script in UNSEEN} == {"unseen/sick", "unseen/healthy"}


def test_the_parts_are_counted_apart():
    unseen = [outcome("unseen/sick/a", ["dead-layer"], found=["dead-layer:note"]), outcome("unseen/healthy/a")]
    assert parts([*unseen, *MADE_UP]) == (MADE_UP, unseen)


@pytest.mark.parametrize("script", ALL, ids=lambda script: script.name)
def test_a_docstring_names_known_findings_alone(script):
    assert {*script.expects, *script.also_fine} <= set(CHECKS)


@pytest.mark.parametrize("part", [SEEN, UNSEEN], ids=["seen", "unseen"])
def test_every_finding_has_a_sick_script(part):
    assert set(CHECKS) <= {name for script in part for name in script.expects}


def test_a_few_scripts_for_real():
    chosen = [script for script in ALL if script.name in QUICK]
    outcomes = suite.run_all(chosen, jobs=0)
    assert len(outcomes) == len(QUICK)
    assert [one.error for one in outcomes] == [""] * len(QUICK)
    assert {one.script.name: verdict(one) for one in outcomes} == {
        script.name: "leads" if script.sick else "quiet" for script in chosen
    }


def written(tmp_path, body):
    path = tmp_path / "script.py"
    path.write_text(body)
    return Script(str(tmp_path / "script"), "A script.")


def test_a_script_that_fails_is_broken_and_says_where(tmp_path):
    found = run(written(tmp_path, "import torch\n\nraise RuntimeError('no data')\n"))
    assert found.error == "RuntimeError: no data (script.py:3)"
    assert verdict(found) == "broken"


def test_a_script_that_leaves_early_is_broken(tmp_path):
    assert run(written(tmp_path, "raise SystemExit(3)\n")).error.startswith("SystemExit: 3")


def test_a_script_that_never_steps_is_broken(tmp_path):
    assert run(written(tmp_path, "print('hello')\n")).error == "no step was recorded"


def test_a_script_leaves_nothing_behind(tmp_path, capsys):
    body = (
        "import random, sys, torch\n"
        "assert sys.argv == [__file__] and torch.get_num_threads() == 1 and __name__ == '__main__'\n"
        "first = torch.rand(()).item(), random.random()\nrandom.seed(3)\n"
        "torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False); torch.set_num_threads(2)\n"
        "assert first[0] == 0.49625658988952637, first\n"
        "print('noise')\n"
    )
    before = list(sys.argv), torch.get_num_threads()
    script = written(tmp_path, body)
    for _ in range(2):
        torch.manual_seed(5)
        random.seed(5)
        assert run(script).error == "no step was recorded"
        assert (torch.get_default_dtype(), torch.is_grad_enabled()) == (torch.float32, True)
        assert (sys.argv, torch.get_num_threads()) == before
    assert "noise" not in capsys.readouterr().out


def test_the_numbers_go_into_the_page(tmp_path):
    page = tmp_path / "findings.md"
    page.write_text(docs.PAGE.read_text())
    unseen = [
        outcome("unseen/sick/quiet", ["dead-layer"]),
        outcome("unseen/sick/plain", ["dead-layer"], found=["dead-layer:note"]),
    ]
    made_up = [*MADE_UP, *unseen]
    outcomes = [replace(one, script=replace(one.script, what=f"What {one.script.name} is.")) for one in made_up]
    docs.write_docs(outcomes, page)
    text = page.read_text()
    assert "| faults named, of the sick scripts | 3 of 7 (43 %) |" in text
    assert "| dead-layer | 2 of 2 | 1 | 0 | 1 |" in text
    assert "| sick/companion | What sick/companion is. | missed | always-clipping |" in text
    assert "| healthy/alarm | What healthy/alarm is. | false alarm | loss-spike, dead-layer |" in text
    tuned, mark, held_out = text.partition("<!-- findings: unseen -->")
    assert mark
    assert "| unseen/sick/quiet | What unseen/sick/quiet is. | missed | nothing |" in held_out
    assert "| faults named, of the sick scripts | 1 of 2 (50 %) |" in held_out
    assert "unseen/sick/" not in tuned
    docs.write_docs(outcomes, page)
    assert page.read_text() == text


def test_the_command_runs_what_it_is_asked_for(tmp_path, capsys):
    path = tmp_path / "found.csv"
    outcomes = suite.main(["--only", "exhausted_generator", "--jobs", "0", "--csv", str(path)])
    assert [one.script.name for one in outcomes] == ["sick/clip_exhausted_generator"]
    assert path.read_text().splitlines()[1].startswith("sick/clip_exhausted_generator,clip-exhausted-generator,,")
    told = capsys.readouterr().out
    assert "sick scripts whose fault was named: 1 of 1 (100 %)" in told
    assert "unseen/" not in told


def test_the_command_tells_the_parts_apart(capsys):
    suite.main(["--only", "sick/nan_zero_by_zero", "--jobs", "0"])
    suite.main(["--only", "sick/angular", "--jobs", "0"])
    tuned, unseen = capsys.readouterr().out.split(suite.PARTS[1])
    assert suite.PARTS[0] in tuned
    assert "named: 1 of 1 (100 %)" in tuned
    assert "named: 1 of 1 (100 %)" in unseen


@pytest.mark.parametrize("arguments", [["--only", "no such script"], ["--only", "sick", "--docs"]])
def test_what_cannot_be_run_is_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        suite.main(arguments)
    assert "error" in capsys.readouterr().err
