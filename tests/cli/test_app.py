"""The command as a whole: its version, its start, and its one-sentence errors."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import gradclip
from gradclip.cli import app


def test_version():
    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.stdout) == (0, f"gradclip {gradclip.__version__}\n")


def test_python_m_is_the_command():
    shown = subprocess.run([sys.executable, "-m", "gradclip", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout == f"gradclip {gradclip.__version__}\n"


def test_starting_the_command_loads_nothing_heavy():
    code = "import sys, gradclip.cli; print([name for name in ('torch', 'plotly', 'numpy') if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lab"], "name a lab: there are charlm, lstm"),
        (["lab", "lstmm"], "unknown lab 'lstmm'"),
        (["lab", "lstm", "--steps", "0"], "--steps is a number of at least 1, not 0"),
        (["lab", "lstm", "--steps", "-5"], "--steps is a number of at least 1, not -5"),
        (["lab", "lstm", "--jobs", "0"], "--jobs is a number of at least 1, not 0"),
        (["lab", "lstm", "--lr", "0"], "--lr is a learning rate above 0"),
        (["lab", "lstm", "--lr", "nan"], "--lr is a learning rate above 0"),
        (["lab", "lstm", "--lr", "inf"], "--lr is a learning rate above 0"),
        (["lab", "lstm", "--seed", "-1"], "--seed is a whole number"),
        (["lab", "lstm", "--clip", "agcc:0.1"], "did you mean 'agc'"),
        (["lab", "lstm", "--clip", "global_norm:-1"], "a threshold must be > 0"),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_code_2(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 2
    assert said in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
    assert not shown.stdout
    assert not list(tmp_path.rglob("*.html"))


def test_a_recipe_that_does_not_fit_the_model_is_one_sentence(tmp_path):
    arguments = ["lab", "lstm", "--steps", "1", "--jobs", "1", "--out", str(tmp_path / "a.html")]
    shown = CliRunner().invoke(app, [*arguments, "--clip", "group_norm:1,patterns=head.*"])
    assert shown.exit_code == 2
    assert "'lstm.weight_ih_l0' is in none of the groups" in shown.stderr
    assert not (tmp_path / "a.html").exists()


@pytest.mark.parametrize("place", ["folder", "file/page.html"])
def test_a_page_that_cannot_be_written_is_said_before_training(place, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    shown = CliRunner().invoke(app, ["lab", "lstm", "--out", str(tmp_path / place)])
    assert shown.exit_code == 2
    assert shown.stderr.startswith("cannot write ")
    assert len(shown.stderr.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "kept"
