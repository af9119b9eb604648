"""The bench of what watching costs, in its quick form; who is wrong is found out before anything is timed."""

from __future__ import annotations

import csv
from importlib import import_module
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
ALWAYS = ["plain step", "gradclip record", "p.grad.norm().item() of each"]
HISTC = "histograms of 64 bins, torch.histc"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    """The scripts find each other in their own folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def contenders():
    return import_module("monitor_contenders")


@pytest.fixture
def job():
    torch.manual_seed(0)
    return import_module("monitor_models").many_tensors(6, 4, 3)


def test_the_quick_form_measures_everybody_on_every_model(contenders, tmp_path, capsys):
    path = tmp_path / "monitor.csv"
    rows = import_module("monitor").main(["--quick", "--rounds", "1", "--threads", "1", "--csv", str(path)])
    shown = capsys.readouterr().out
    with path.open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(rows)
    assert list(lines[0]) == [
        "model", "contender", "milliseconds", "adds", "over_plain", "over_logging", "norm_error", "steps", "rounds",
        "cpu", "threads", "isa", "torch", "python", "kernel",
    ]  # fmt: skip
    for model in ("LSTM 2x8, not clipped", "LSTM 2x8, clipped", "20 tensors of width 8, 4 rows"):
        own = {row.contender: row for row in rows if row.model == model}
        assert set(own) >= {*ALWAYS, HISTC}
        assert own["plain step"].over_plain == own[ALWAYS[2]].over_logging == 1
        for row in own.values():
            if row.contender in contenders.LEAVE_WORK:  # beside a plain step of its own rounds
                continue
            assert row.over_plain == pytest.approx(row.milliseconds / own["plain step"].milliseconds)
            assert row.over_logging == pytest.approx(row.milliseconds / own[ALWAYS[2]].milliseconds)
            assert row.adds == pytest.approx(row.milliseconds - own["plain step"].milliseconds)
        assert own["gradclip record"].norm_error <= 1e-6
        assert own[ALWAYS[2]].norm_error <= 1e-4
    assert "x logging" in shown
    for module in ("lightning", "wandb"):
        installed = import_module("importlib.util").find_spec(module) is not None
        assert (f"{module} is not installed" in shown) != installed


def test_contenders_see_the_same_norms(contenders, job, tmp_path):
    """Each is given the gradients of another step, and says so."""
    taking_part = contenders.contenders(missing=lambda sentence: None)
    for name in (ALWAYS[1], ALWAYS[2], HISTC):
        with taking_part[name](job, tmp_path) as watcher:
            exact = {}
            job.step(lambda: (watcher.look(), exact.update(job.exact())))  # noqa: B023
            watcher.check(exact)
            with pytest.raises(AssertionError):
                watcher.check({name: 1.01 * grad for name, grad in exact.items()})
            with pytest.raises(AssertionError, match="of 7"):
                watcher.check({**exact, "other": torch.ones(2, dtype=torch.float64)})


def test_a_histogram_holds_every_element(contenders):
    grad = torch.randn(500, generator=torch.Generator().manual_seed(0))
    counts, edges = contenders.histogram(grad)
    exact = {"w": grad.double()}
    assert contenders.check_histograms({"w": (counts, edges)}, exact) is None
    for wrong in (([counts[0] + 1, *counts[1:]], edges), (counts[::-1], [2 * edge for edge in edges]), (sorted(counts), edges)):
        with pytest.raises(AssertionError, match="histogram of w"):
            contenders.check_histograms({"w": wrong}, exact)


def test_only_what_is_asked_for():
    with pytest.raises(SystemExit, match="no model holds 'transformer'"):
        import_module("monitor").main(["--only", "transformer"])


def test_turns():
    rotated = import_module("tables").rotated
    assert [rotated(["a", "b", "c"], number) for number in (0, 1, 5)] == [list("abc"), list("bca"), list("cab")]


def test_a_table_replaces_the_one_between_its_marks(tmp_path):
    put_into_page, page = import_module("tables").put_into_page, tmp_path / "page.md"
    page.write_text("a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- y -->\nkept\n<!-- /y -->\n")
    for _ in range(2):
        put_into_page(page, "x", ["| new |"], {"cpu": "fast", "threads": 2})
    text = "a\n<!-- x -->\nMeasured on cpu fast, threads 2.\n\n| new |\n<!-- /x -->\nb\n<!-- y -->\nkept\n<!-- /y -->\n"
    assert page.read_text() == text
    with pytest.raises(ValueError, match="needs a line <!-- z -->"):
        put_into_page(page, "z", [], {})
    assert page.read_text() == text
