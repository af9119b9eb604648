"""A damaged file is one sentence and exit code 2, in every command; nothing in it is run, and nothing takes for ever.

``GRADCLIP_DAMAGES=0`` tries every damage with every command (some 50,000 calls), else a sample does.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import struct
import sys
import tracemalloc

import pytest
import torch
from typer.testing import CliRunner

import gradclip
from gradclip.cli import app
from gradclip.diagnosis.ranking import check
from gradclip.diagnosis.readings.run_data import read_run
from gradclip.runs import Run, RunFileError, RunWriter, StepRow, TensorInfo
from gradclip.runs.export import export
from tests.runs.damage import PAGE, damages
from tests.runs.test_old_schema import old

SAMPLE = int(os.environ.get("GRADCLIP_DAMAGES", "240"))
PARTS = 16
LIMIT = 120
"""Seconds for a case that hangs; one takes a tenth of a second."""

COMMANDS = [
    ["list", "FOLDER"],
    ["check", "RUN"],
    ["report", "RUN", "--text"],
    ["report", "RUN"],
    ["suggest", "RUN"],
    ["top", "RUN", "--once"],
    ["compare", "RUN", "WHOLE"],
    ["replay", "RUN"],
    *(["export", "RUN", "--to", to] for to in ("csv", "parquet", "tensorboard")),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training with two optimizers and two parameter groups, as it is recorded."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    groups = [{"params": model[0].parameters()}, {"params": model[2].weight, "lr": 0.2}]
    optimizers = [torch.optim.SGD(groups, lr=0.1), torch.optim.Adam([model[2].bias])]
    with gradclip.record(model, optimizers, out=folder / "whole.gradclip", title="small") as recording:
        command = [sys.executable, "-c", f"open({str(folder / 'mark')!r}, 'w')"]
        recording._writer.update_meta(watched=True, command=command, cwd=str(folder))
        for _ in range(24):
            for optimizer in optimizers:
                optimizer.zero_grad()
            model(torch.randn(8, 3)).pow(2).mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            for optimizer in optimizers:
                optimizer.step()
    return folder / "whole.gradclip"


@pytest.fixture
def no_case_hangs():
    """Interrupt what never ends, so that the suite does."""

    def hangs(*_):
        raise TimeoutError("a damaged file takes for ever")

    before = signal.signal(signal.SIGALRM, hangs)
    yield lambda: signal.alarm(LIMIT)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def sample(whole):
    """What is tried: of everything that can be damaged, a part, and every statement of several lines."""
    every = list(damages(whole))
    if not SAMPLE:
        return every
    few = random.Random(0).sample(every, SAMPLE)
    return [*few, *(case for case in every if case[0].startswith("sql: ") and case not in few)]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no alarm there")
@pytest.mark.parametrize("part", range(PARTS))
def test_every_damage_is_one_sentence(whole, tmp_path, no_case_hangs, part):
    for number, (name, damage) in list(enumerate(sample(whole)))[part::PARTS]:
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "run.gradclip"
        shutil.copy(whole, path)
        damage(path)
        words = {"RUN": str(path), "FOLDER": str(folder), "WHOLE": str(whole)}
        tried = [number, number // PARTS + 3, number // PARTS + 7] if SAMPLE else range(len(COMMANDS))
        for command in [COMMANDS[0], *(COMMANDS[i % len(COMMANDS)] for i in tried)]:
            no_case_hangs()
            done = CliRunner().invoke(app, [words.get(word, word) for word in command])
            told = f"{command[0]} of {name}: exit code {done.exit_code}, {done.output!r}"
            assert done.exception is None or isinstance(done.exception, SystemExit), (told, done.exc_info)
            assert done.exit_code in ({0, 1} if command[0] == "check" else {0}) | {2}, told
            assert done.exit_code != 2 or len(done.stderr.splitlines()) == 1, told
            assert len(done.stderr) < 1000, told
            assert done.stderr.isprintable() or done.stderr[:-1].isprintable(), told
        assert not (whole.parent / "mark").exists(), name
        shutil.rmtree(folder)


def test_files_of_schema_1_are_damaged_in_the_same_words(tmp_path, no_case_hangs):
    """Their events are converted when they are opened, before anything else is read."""
    clip = ["clip", "clip_grad_norm_ norm_type=2.0 (optimizers 0, 1, 3 of 8 tensors)"]
    rows = [
        (step % 2, step, ["forward", "backward", clip, ["step", "optimizer 1"] if step % 2 else "step"]) for step in range(20)
    ]
    whole = old(tmp_path / "whole.gradclip", rows, numbers=(0, 1), places={"step": "train.py:7"})
    with Run.open(whole) as run:
        check(read_run(run))
    of_events = [case for case in damages(whole) if case[0].startswith(("event_patterns", "events", "meta places"))]
    told = []
    for _, damage in random.Random(0).sample(of_events, 120):
        path = tmp_path / "run.gradclip"
        shutil.copy(whole, path)
        damage(path)
        no_case_hangs()
        try:
            with Run.open(path) as run:
                check(read_run(run))
        except RunFileError as error:
            told.append(str(error))
    assert len(told) > 40
    assert all(sentence.startswith(f"{path} ") and len(sentence.splitlines()) == 1 for sentence in told)


def test_what_is_whole_is_read(whole, tmp_path):
    """The same commands, without which the test above could pass by refusing everything."""
    shutil.copy(whole, tmp_path / "run.gradclip")
    words = {"RUN": str(tmp_path / "run.gradclip"), "FOLDER": str(tmp_path), "WHOLE": str(whole)}
    codes = [CliRunner().invoke(app, [words.get(word, word) for word in command]).exit_code for command in COMMANDS]
    assert codes == [2 if command[0] == "replay" else 0 for command in COMMANDS]  # which nobody allowed


def test_a_deeply_nested_file_breaks_the_list_of_none_but_itself(whole, tmp_path):
    shutil.copy(whole, tmp_path / "whole.gradclip")
    for name, text in {"deep": "[" * 200_000, "closed": "[" * 900 + "]" * 900, "shape": '{"a":' * 200_000}.items():
        shutil.copy(whole, tmp_path / f"{name}.gradclip")
        connection = sqlite3.connect(tmp_path / f"{name}.gradclip", isolation_level=None)
        connection.execute("UPDATE meta SET value = ? WHERE key = 'title'", (text,))
        connection.close()
    shown = CliRunner().invoke(app, ["list", str(tmp_path)], env={"COLUMNS": "400"})
    assert shown.exit_code == 0
    assert shown.stdout.count("is damaged: meta 'title' holds") == 3
    assert "whole.gradclip" in shown.stdout


def cells_of(content, page):
    """The places of a page's cells, and its kind."""
    kind = content[page * PAGE]
    (count,) = struct.unpack_from(">H", content, page * PAGE + 3)
    return kind, [place for (place,) in struct.iter_unpack(">H", content[page * PAGE + 12 : page * PAGE + 12 + 2 * count])]


def test_a_page_that_is_its_own_child_many_times_is_not_followed(tmp_path):
    """A small file can say that it has any number of rows: every branch of its tree leads to the same leaf."""
    writer = RunWriter(tmp_path / "run.gradclip")
    writer.add_tensors([TensorInfo("w", (2,))])
    for step in range(6000):
        writer.add_step(StepRow(step=step, loss=0.1, norm=0.1, clipped_norm=0.1, lr=0.1))
    writer.close()
    content = bytearray(writer.path.read_bytes())
    branches = [
        (page, cells) for page in range(1, len(content) // PAGE) for kind, cells in [cells_of(content, page)] if kind in (2, 5)
    ]
    assert branches
    for page, cells in branches:
        first = content[page * PAGE + cells[0] : page * PAGE + cells[0] + 4]
        for place in cells:
            content[page * PAGE + place : page * PAGE + place + 4] = first
    writer.path.write_bytes(content)
    with Run.open(writer.path) as run, pytest.raises(RunFileError, match=r"run\.gradclip is damaged: .*2nd reference to page"):
        run.steps()


@pytest.fixture
def wide(tmp_path):
    """A file of a few megabytes with 4,000 tensors and 8,000 rows, each of which says that almost all were absent."""
    writer = RunWriter(tmp_path / "run.gradclip")
    writer.add_tensors([TensorInfo(f"layers.{i}", (1,)) for i in range(4_000)])
    for step in range(8_000):
        writer.add_step(StepRow(step=step, loss=1.0, norm=1.0))
        writer.add_tensor_row(step, 0, "norm", [1.0])
    writer.close()
    return writer.path


@pytest.mark.parametrize("job", ["check", "top", "parquet", "tensorboard"])
def test_memory_follows_what_is_in_the_file_and_not_what_it_stands_for(wide, tmp_path, job):
    """As a matrix of float32, the norms would be 128 MB."""
    from gradclip.report.live import Follower

    if job not in ("check", "top"):
        pytest.importorskip("pyarrow" if job == "parquet" else job)
    assert wide.stat().st_size < 2e6
    with Run.open(wide) as run:
        tracemalloc.start()
        try:
            if job == "check":
                check(read_run(run))
            elif job == "top":
                Follower(run).read_new()
            else:
                export(run, tmp_path / "out", job)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert most < 64e6


def test_a_row_of_rates_that_no_other_has_is_damage(tmp_path):
    writer = RunWriter(tmp_path / "run.gradclip")
    for step in range(2000):
        writer.add_step(StepRow(step=step, lr=[0.1] * (20_000 if step == 5 else 2)))
    writer.close()
    with Run.open(writer.path) as run, pytest.raises(RunFileError, match="20,000 learning rates of one step"):
        run.learning_rates()
