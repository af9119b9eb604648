"""``gradclip lab`` prints a table, a verdict and the page's path, and the same again for the same seed."""

from __future__ import annotations

from typer.testing import CliRunner

from gradclip.cli import app
from gradclip.labs import LABS


def run(*arguments, **env):
    shown = CliRunner().invoke(app, ["lab", "lstm", "--steps", "3", "--jobs", "1", *arguments], env=env)
    assert shown.exit_code == 0, shown.stderr
    return shown.stdout


def test_list_names_every_lab():
    shown = CliRunner().invoke(app, ["lab", "--list"])
    assert shown.exit_code == 0
    assert all(name in shown.stdout and about in shown.stdout for name, about in LABS.items())


def test_it_says_what_happened_and_where_the_page_is(tmp_path):
    page = tmp_path / "made" / "page.html"
    shown = run("--out", str(page))
    assert "LSTM at lr 0.1, no clipping: 3 steps" in shown
    assert "squared error" in shown
    assert "In squared error, clipping " in shown
    assert f"Page: {page}" in shown
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_page_goes_to_runs_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run()
    assert (tmp_path / "runs" / "lab-lstm.html").exists()


def test_the_same_seed_prints_the_same(tmp_path):
    first, second, other = (run("--seed", seed, "--out", str(tmp_path / "page.html")) for seed in ("1", "1", "2"))
    assert first == second != other


def test_clip_and_lr_change_the_arms(tmp_path):
    shown = run("--lr", "0.5", "--clip", "tensor_norm:2", "--out", str(tmp_path / "page.html"))
    assert "LSTM at lr 0.5, no clipping" in shown
    assert "LSTM at lr 0.5, tensor_norm:2.0" in shown
    again = "gradclip lab lstm --steps 3 --clip tensor_norm:2 --lr 0.5 --seed 0"
    assert again in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_pattern_in_square_brackets_is_no_markup(tmp_path):
    shown = run("--clip", "global_norm:1,exclude=[ox]utput.*", "--out", str(tmp_path / "[b]page.html"))
    assert shown.count("exclude=[ox]utput.*") == 3  # progress, table and verdict
    assert "[b]page.html" in shown


def test_names_keep_their_line_in_80_columns(tmp_path):
    shown = run("--out", str(tmp_path / "page.html"), COLUMNS="80")
    table = shown.split("─")[-1].split("In squared error")[0]
    assert "LSTM at lr 0.1, global_norm:20.0 " in table
