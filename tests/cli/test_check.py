"""``gradclip check``, ``findings`` and ``explain``; and the findings on a page, in ``report --text`` at the end of a run."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from gradclip.cli import app
from gradclip.diagnosis.registry import CHECKS
from gradclip.runs import Event, RunWriter, StepRow, TensorInfo
from gradclip.watch.end.closing_lines import closing_lines
from tests.diagnosis.runs import recorded

LATE = ("clip", "zero_grad", "forward", "backward", "step")


def call(*words, code=0):
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert done.exit_code == code, done.output
    return done.stderr if code == 2 else done.stdout


@pytest.fixture
def healthy(tmp_path):
    return recorded(tmp_path / "healthy.gradclip", [[1.0 + 0.01 * (step % 3), 2.0] for step in range(50)])


@pytest.fixture
def sick(tmp_path):
    writer = RunWriter(tmp_path / "sick.gradclip", {"title": "<b>sick</b>.py"})
    writer.add_tensors([TensorInfo("w", (2,))])
    for step in range(30):
        writer.add_step(StepRow(step=step, loss=1 / (step + 1), norm=1.0))
        writer.add_tensor_row(step, 0, "norm", [1.0])
        writer.add_events(step, 0, [Event(kind, 0, place="<i>.py:3" * (kind == "clip")) for kind in LATE[step == 0 :]])
    writer.close()
    return writer.path


def test_a_healthy_run_is_called_so(healthy):
    assert call("check", healthy) == f"run: nothing found wrong in 50 steps ({len(CHECKS)} checks).\n"
    assert closing_lines(healthy, None, str(healthy.parent)) == [
        f"checks  nothing found wrong ({len(CHECKS)} checks)",
        "run     healthy.gradclip",
    ]


def test_a_finding_is_told_with_evidence_and_fix_and_an_error_is_the_exit_code(sick):
    told = call("check", sick, code=1)
    assert "1 finding in 30 steps" in told
    assert "clip-after-step  error · certain · <i>.py:3" in told
    assert "share of steps" in told
    assert "    optimizer.step()" in told
    assert "gradclip explain clip-after-step" in told
    assert call("check", sick, "--exit-zero") == told


def test_findings_as_json(sick):
    told = json.loads(call("check", sick, "--json", code=1))
    assert (told["run"], told["status"]) == (str(sick), "finished")
    assert [one["name"] for one in told["findings"]] == ["clip-after-step"]


def test_what_is_no_run_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "a.txt").write_text("no run")
    assert "a.txt" in call("check", tmp_path / "a.txt", code=2)
    assert "there is no run in" in call("check", tmp_path, code=2)


def test_the_page_and_the_terminal_lead_with_the_finding_and_escape_it(sick):
    call("report", sick)
    page = sick.with_suffix(".html").read_text()
    assert page.index("clip-after-step") < page.index("Status: finished")
    assert "&lt;i&gt;.py:3" in page
    assert "<i>.py" not in page
    text = call("report", sick, "--text")
    assert "clip-after-step  error · certain" in text
    assert closing_lines(sick, None, "/")[0].startswith("found   clip-after-step: Gradients are clipped after")


def test_a_run_that_cannot_be_read_does_not_take_the_summary_with_it(tmp_path):
    line, path = closing_lines(tmp_path / "gone.gradclip", None, str(tmp_path))
    assert path == "run     gone.gradclip"
    assert line.startswith("checks  could not look at the run: ")


def test_findings_lists_and_explains():
    listed = call("findings")
    assert all(name in listed for name in CHECKS)
    assert "Why it is bad:" in call("explain", "clip-after-step")
    assert "did you mean clip-after-step?" in call("explain", "clip-after-stop", code=2)
    assert call("findings", "--markdown").count("\n### ") == len(CHECKS)
