"""The verdict says what the numbers say."""

from __future__ import annotations

import math

import pytest

from gradclip.diagnosis.run_verdict import verdict
from gradclip.runs import Event, RunWriter, StepRow
from tests.diagnosis.runs import read, recorded

NAN = math.nan
STEADY = [[3.0, 4.0]] * 20


def said(path, rows, **options):
    return verdict(read(recorded(path, rows, **options)))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a.gradclip"


def test_a_steady_run(file):
    assert said(file, STEADY) == (
        "run finished after 20 steps: the gradient norm stayed near 5, at most 5 at step 0; nothing was clipped."
    )


def test_norms_that_fall_and_spike(file):
    rows = [[10.0]] * 50 + [[1.0]] * 50
    rows[70] = [900.0]
    assert "the gradient norm fell from about 10 to 1, at most 900 at step 70, 90 times the median" in said(file, rows)


def test_norms_that_rise(file):
    assert "the gradient norm rose from about 1 to 4" in said(file, [[1.0]] * 20 + [[4.0]] * 20)


def test_a_few_norms_before_the_end(file):
    assert "rose from about 1 to 1e+09, at most 1e+09 at step 2" in said(file, [[1.0], [1e3], [1e9], [NAN], [NAN]])


@pytest.mark.parametrize(
    ("threshold", "words"),
    [(1.0, "(clip_grad_norm_ at 1) acted on 100% of steps"), (9.0, "(clip_grad_norm_ at 9) never acted"), (5.0, "never acted")],
)
def test_how_often_clipping_acted(file, threshold, words):
    assert words in said(file, STEADY, threshold=threshold)


def test_the_recipe_that_was_asked_for_is_named(file):
    assert "clipping (agc:0.01) acted" in said(file, STEADY, threshold=1.0, clip="agc:0.01")


@pytest.mark.parametrize(
    ("bad", "skips", "words"),
    [
        ([7], [7], "1 step held a NaN or Inf, it was step 7, and was skipped"),
        ([7, 9], [7, 9], "2 steps held a NaN or Inf, the first step 7, and all were skipped"),
        ([7, 9], [], "2 steps held a NaN or Inf, the first step 7; none was skipped"),
        ([7, 9], [7], "2 steps held a NaN or Inf, the first step 7; 1 step was skipped"),
        ([], [3], "1 step was skipped"),
    ],
)
def test_steps_that_were_not_finite(file, bad, skips, words):
    rows = [[NAN, 1.0] if step in bad else [1.0, 1.0] for step in range(20)]
    assert words in said(file, rows, skips=skips)


def test_a_loss_that_is_lost(file):
    losses = [1.0] * 10 + [NAN] + [1.0] * 4 + [NAN] * 5
    assert "the loss was not a finite number from step 15 to the end" in said(file, STEADY, losses=losses)
    assert "the loss" not in said(file.with_name("b"), STEADY)


@pytest.mark.parametrize(("status", "words"), [("crashed", "crashed after"), ("interrupted", "was interrupted after")])
def test_how_it_ended(file, status, words):
    assert said(file, STEADY, status=status).startswith(f"run {words} 20 steps: ")


def test_a_run_that_goes_on(file):
    writer = RunWriter(file, {"title": "run"})
    recorded(file, STEADY, writer=writer, status=None)
    assert verdict(read(file)).startswith("run is still running after 20 steps: ")
    writer.close()


def test_several_optimizers_have_a_sentence_each(file):
    writer = RunWriter(file, {"title": "gan"})
    recorded(file, STEADY, writer=writer, status=None)
    recorded(file, [[1.0]] * 10, optimizer=1, writer=writer)
    assert verdict(read(file)) == (
        "gan finished. Optimizer 0, 20 steps: the gradient norm stayed near 5, at most 5 at step 0; nothing was clipped. "
        "Optimizer 1, 10 steps: the gradient norm stayed near 1, at most 1 at step 0; nothing was clipped."
    )


def test_no_steps(file):
    RunWriter(file, {"title": "run"}).close()
    assert verdict(read(file)) == "run finished; no step was recorded."


def test_only_nan(file):
    assert "no finite gradient norm was recorded" in said(file, [[NAN]] * 3)


def test_the_clipping_of_a_second_optimizer_is_its_own(tmp_path):
    writer = RunWriter(tmp_path / "gan.gradclip", {"title": "gan.py"})
    for number, function in enumerate(["clip_grad_value_", "clip_grad_norm_"]):
        for step in range(20):
            writer.add_step(StepRow(step=step, optimizer=number, norm=2.0, clipped_norm=0.5, threshold=0.5, clipped=True))
            writer.add_events(step, number, [Event("clip", number, function), Event("step", number)])
    writer.close()
    said = verdict(read(writer.path))
    assert "clipping (clip_grad_value_ at 0.5)" in said
    assert "clipping (clip_grad_norm_ at 0.5)" in said
