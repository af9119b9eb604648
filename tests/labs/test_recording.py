"""Each arm leaves a run file that any command reads, and the page is made from these files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from typer.testing import CliRunner

from gradclip.cli import app
from gradclip.labs import LABS, load
from gradclip.labs.page import page
from gradclip.labs.runner import run_path
from gradclip.runs import Run, RunFileError, RunWriter
from tests.labs.support import UNCLIPPED, Arm, runs

pytestmark = pytest.mark.usefixtures("small")


def told(*words):
    shown = CliRunner().invoke(app, [*map(str, words)])
    assert shown.exit_code == 0, shown.stderr
    return shown.stdout


@pytest.mark.parametrize("name", LABS)
def test_the_norms_are_those_that_the_first_optimizer_steps_with(name, tmp_path):
    lab, seen = load(name), {}

    def norm(optimizer, args, kwargs):
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        seen.setdefault(id(optimizer), []).append(torch.stack([grad.double().norm() for grad in grads]).norm().item())

    for place, arm in enumerate((*lab.arms[:2], lab.arms[-1])):
        hook = register_optimizer_step_pre_hook(norm)
        try:
            # an attached clipper's own hook comes after this one, so that these are the norms before clipping
            (run,) = runs(lab, [arm], out=tmp_path / str(place))
        finally:
            hook.remove()
        first, *_ = seen.values()
        attached = name in ("charlm", "schedules", "thresholds", "heavy-noise")
        assert (run.norms if attached else run.clipped_norms) == pytest.approx(first, rel=1e-5)
        assert run.path == run_path(tmp_path / str(place), name, 0, arm)
        seen.clear()


def test_the_loss_in_the_file_is_the_labs(tmp_path):
    for name in LABS:
        (run,) = runs(load(name), [load(name).arms[0]], out=tmp_path)
        with Run.open(run.path) as opened:
            assert opened.steps(0).loss.tolist() == run.losses, name


def test_what_a_run_file_says(tmp_path):
    lab = load("schedules")
    arms = [Arm("cosine", 2.0), Arm("cosine", 2.0, "tensor_norm:0.01")]
    free, clipped = runs(lab, arms, out=tmp_path)
    with Run.open(free.path) as run:
        assert run.status == "finished"
        assert run.meta["title"] == "cosine at lr 2, no clipping"
        assert not any(event.kind == "clip" for *_, events in run.events() for event in events)
        assert run.steps().missing["clipped"].all()
        assert run.tensor_matrix("norm").matrix.shape == (4, len(run.tensors))
    with Run.open(clipped.path) as run:
        assert all(any(event.function.startswith("tensor_norm:0.01") for event in events) for *_, events in run.events())
        assert all(
            event.place.rpartition(":")[0].endswith("schedules.py") for event in run.events()[0][-1] if event.kind == "step"
        )
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
    assert "Run files" not in page(lab, [replace(run, path=None) for run in few], command="", seed=0).facts


def test_the_next_run_takes_the_place_of_the_last(tmp_path):
    lab = load("cliff")
    runs(lab, steps=5, out=tmp_path)
    (free, _) = runs(lab, steps=2, out=tmp_path)
    assert len(list(tmp_path.glob("*.gradclip"))) == 2
    with Run.open(free.path) as run:
        assert len(run.steps()) == 2


def test_where_no_file_can_be_written_the_lab_says_so(tmp_path):
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    with pytest.raises(RunFileError):
        runs(load("cliff"), out=nowhere / "runs")


def test_a_file_that_lost_steps_is_no_result(tmp_path, monkeypatch):
    add, rows = RunWriter.add_step, []

    def add_two(writer, row):
        rows.append(row)
        if len(rows) <= 2:
            add(writer, row)

    monkeypatch.setattr(RunWriter, "add_step", add_two)
    with pytest.raises(RunFileError, match="holds 2 of 4 steps"):
        runs(load("cliff"), out=tmp_path)


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), "interrupted"), (ValueError("broken"), "crashed")])
def test_an_arm_that_breaks_off_says_so_in_its_file(tmp_path, error, status):
    lab = load("cliff")

    def train(arm, steps, seed):
        yield from lab.train(arm, 2, seed)
        raise error

    with pytest.raises(type(error)):
        runs(replace(lab, train=train), [lab.arms[0]], out=tmp_path)
    with Run.open(run_path(tmp_path, "cliff", 0, lab.arms[0])) as run:
        assert run.status == status
        assert len(run.steps()) == 2


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
