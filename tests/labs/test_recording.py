"""Each arm leaves a run file that any command reads, and the page is made from these files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gradclip.cli import app
from gradclip.labs import LABS, load
from gradclip.labs.page import page
from gradclip.labs.recording import read, run_path
from gradclip.runs import Run, RunFileError
from tests.labs.support import UNCLIPPED, Arm, runs

pytestmark = pytest.mark.usefixtures("small")


def told(*words):
    shown = CliRunner().invoke(app, [*map(str, words)])
    assert shown.exit_code == 0, shown.stderr
    return shown.stdout


def without_path(recorded):
    """To be compared by their repr: a NaN, the limit where there are several, is not equal to itself."""
    return [replace(run, path=None) for run in recorded]


@pytest.mark.parametrize("name", LABS)
def test_the_file_holds_the_numbers_of_the_arm(name, tmp_path):
    lab = load(name)
    arms = [*lab.arms[:2], lab.arms[-1]]
    recorded, plain = runs(lab, arms, out=tmp_path), runs(lab, arms)
    assert repr(without_path(recorded)) == repr(plain)
    assert [run.path for run in recorded] == [run_path(tmp_path, name, i, arm) for i, arm in enumerate(arms)]


def test_a_run_that_diverged_reads_back_as_it_was(tmp_path):
    (recorded,), (plain,) = (runs(load("lstm"), [Arm("LSTM", 1e20)], steps=50, out=out) for out in (tmp_path, None))
    assert repr(without_path([recorded])) == repr([plain])
    assert recorded.note.startswith("diverged")


def test_what_a_run_file_says(tmp_path):
    lab = load("schedules")
    arms = [Arm("cosine", 2.0), Arm("cosine", 2.0, "tensor_norm:0.01")]
    free, clipped = runs(lab, arms, out=tmp_path)
    with Run.open(free.path) as run:
        assert run.status == "finished"
        assert run.meta["title"] == "cosine at lr 2, no clipping"
        assert run.meta["clip"] is None
        assert run.steps().missing["clipped"].all()
        assert run.tensor_matrix("norm").matrix.shape == (4, len(run.tensors))
    with Run.open(clipped.path) as run:
        assert run.meta["clip"] == "tensor_norm:0.01"
        assert run.steps().clipped.all()
        assert run.steps().lr.tolist() == clipped.also["rate"]
        assert run.tensor_matrix("clipped_norm").matrix.max() == pytest.approx(0.01)


def test_report_and_compare_read_it(tmp_path):
    free, clipped = runs(load("lstm"), out=tmp_path)
    assert "LSTM at lr 0.1, global_norm:20.0 finished after 4 steps" in told("report", clipped.path, "--text")
    assert "LSTM at lr 0.1, no clipping" in told("compare", free.path, clipped.path)


def test_the_page_names_its_files_or_their_pattern(tmp_path):
    lab = load("cliff")
    few = runs(lab, out=tmp_path)
    facts = page(lab, few, command="", seed=0).facts
    assert facts["Run files"] == ", ".join(str(run.path) for run in few)
    many = [replace(few[0], path=tmp_path / f"{i}") for i in range(9)]
    assert page(lab, many, command="", seed=0).facts["Run files"] == f"{tmp_path / 'lab-cliff-*.gradclip'}, 9 of them"
    assert "Run files" not in page(lab, runs(lab), command="", seed=0).facts


def test_the_next_run_takes_the_place_of_the_last(tmp_path):
    lab = load("cliff")
    runs(lab, steps=5, out=tmp_path)
    (free, _) = runs(lab, steps=2, out=tmp_path)
    assert len(list(tmp_path.glob("*.gradclip"))) == 2
    assert len(read(free.path).losses) == 2


def test_where_no_file_can_be_written_the_lab_goes_on(tmp_path):
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    (free, _) = runs(load("cliff"), out=nowhere / "runs")
    assert len(free.losses) == 4
    assert free.path is None


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), "interrupted"), (ValueError("broken"), "crashed")])
def test_an_arm_that_breaks_off_says_so_in_its_file(tmp_path, error, status):
    lab = load("cliff")

    def train(arm, steps, seed, curves):
        lab.train(arm, 2, seed, curves)
        raise error

    with pytest.raises(type(error)):
        runs(replace(lab, train=train), [lab.arms[0]], out=tmp_path)
    with Run.open(run_path(tmp_path, "cliff", 0, lab.arms[0])) as run:
        assert run.status == status
        assert len(run.steps()) == 2


def test_another_run_is_no_lab(tmp_path):
    with pytest.raises(RunFileError):
        read(tmp_path / "none.gradclip")


def test_single_tensors_are_kept_at_some_steps_of_a_long_run(tmp_path):
    (run,) = runs(load("cliff"), [Arm("unit", 0.05, UNCLIPPED)], steps=600, out=tmp_path)
    with Run.open(run.path) as opened:
        assert len(opened.steps()) == 600
        assert len(opened.tensor_matrix("norm").steps) == 300


def test_a_name_of_any_length_is_a_files_name():
    arm = Arm("LSTM", 0.1, "agc:0.01,exclude=" + "|".join(["*/[x]"] * 90))
    name = run_path(Path("runs"), "lstm", 0, arm).name
    assert len(name) < 140
    assert not set(name) & set("*/|[]:,")
