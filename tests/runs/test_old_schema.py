"""Files of schema 1, whose events are sentences, read as today's: the same events, owners, places and findings."""

from __future__ import annotations

import json
import math
import sqlite3
import time

import pytest

from gradclip.diagnosis.ranking import check
from gradclip.diagnosis.readings.event_order import orders_of
from gradclip.diagnosis.readings.run_data import read_run
from gradclip.report.event_order import order_table
from gradclip.runs import Event, Run, RunFileError, RunWriter, StepRow, TensorInfo, list_runs

SCHEMA_1 = """
PRAGMA application_id = 1735549796;
PRAGMA user_version = 1;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE kinds (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE tensors (
    optimizer INTEGER NOT NULL, id INTEGER NOT NULL,
    name TEXT NOT NULL, shape TEXT NOT NULL, numel INTEGER NOT NULL, param_group INTEGER NOT NULL,
    PRIMARY KEY (optimizer, id)
) WITHOUT ROWID;
CREATE TABLE steps (
    step INTEGER NOT NULL, optimizer INTEGER NOT NULL,
    time REAL, loss REAL, lr REAL, lrs TEXT, norm REAL, clipped_norm REAL, coefficient REAL, threshold REAL,
    clipped INTEGER, skipped INTEGER, nonfinite INTEGER, amp_scale REAL, weight_norm REAL,
    PRIMARY KEY (step, optimizer)
) WITHOUT ROWID;
CREATE TABLE tensor_rows (
    step INTEGER NOT NULL, optimizer INTEGER NOT NULL, kind INTEGER NOT NULL REFERENCES kinds (id),
    factor REAL, data BLOB
);
CREATE UNIQUE INDEX tensor_rows_by_step ON tensor_rows (step, optimizer, kind);
CREATE TABLE event_patterns (id INTEGER PRIMARY KEY, events TEXT NOT NULL UNIQUE);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, step INTEGER NOT NULL, pattern INTEGER NOT NULL REFERENCES event_patterns (id)
);
INSERT INTO kinds VALUES (1, 'norm'), (2, 'clipped_norm'), (3, 'weight_norm'), (4, 'update_norm');
"""


def old(path, rows, numbers=(0,), **meta):
    """A file of schema 1: optimizer, step and events of each row, with four tensors an optimizer."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(SCHEMA_1)
    meta = {"title": "old.py", "status": "finished", "created": 1.0, "heartbeat": time.time(), **meta}
    connection.executemany("INSERT INTO meta VALUES (?, ?)", [(key, json.dumps(value)) for key, value in meta.items()])
    for number in numbers:
        names = [(number, i, f"w{i}", "[2]", 2, 0) for i in range(4)]
        connection.executemany("INSERT INTO tensors VALUES (?, ?, ?, ?, ?, ?)", names)
    for at, (number, step, events) in enumerate(rows):
        values = (step, number, 0.5 * at, 1.0, 0.1, 11.0, 1.0, 0.1, 1.0, 1, 0, 0)
        columns = "step, optimizer, time, loss, lr, norm, clipped_norm, coefficient, threshold, clipped, skipped, nonfinite"
        connection.execute(f"INSERT INTO steps ({columns}) VALUES ({', '.join('?' * 12)})", values)
        text = json.dumps([event if isinstance(event, list) else [event, ""] for event in events])
        connection.execute("INSERT OR IGNORE INTO event_patterns (events) VALUES (?)", (text,))
        connection.execute(
            "INSERT INTO events (step, pattern) VALUES (?, (SELECT id FROM event_patterns WHERE events = ?))", (step, text)
        )
    connection.close()
    return path


def new(path, rows, numbers=(0,)):
    """The same as today's writer writes it."""
    writer = RunWriter(path, {"title": "old.py"})
    for number in numbers:
        writer.add_tensors([TensorInfo(f"w{i}", (2,), optimizer=number) for i in range(4)])
    for at, (number, step, events) in enumerate(rows):
        writer.add_step(
            StepRow(step, number, 0.5 * at, 1.0, 0.1, 11.0, 1.0, 0.1, 1.0, True, False, 0)
        )  # fmt: skip
        writer.add_events(step, number, events)
    writer.close()
    return path


def clip(number, function="clip_grad_norm_", norm=2.0, reached=4, owned=4, threshold=None, **more):
    return Event("clip", number, function, norm, reached, owned, threshold, **more)


CLIPS = {
    "clip_grad_norm_": [clip(0)],
    "clip_grad_value_": [clip(0, "clip_grad_value_", None)],
    "agc:0.01": [clip(0, "agc:0.01", None)],
    "clip_grad_norm_ (3 of 4 tensors)": [clip(0, reached=3)],
    "clip_grad_norm_ (optimizer 1)": [clip(1)],
    "clip_grad_norm_ (optimizer 1, 3 of 4 tensors)": [clip(1, reached=3)],
    "clip_grad_norm_ (optimizers 0, 1)": [clip(0), clip(1)],
    "clip_grad_norm_ (optimizers 0, 12)": [clip(0), clip(12, reached=None, owned=None)],
    "clip_grad_norm_ (optimizers 0, 1, 13 of 60 tensors)": [
        clip(0, reached=None, detail="13 of 60 tensors"),
        clip(1, reached=None, detail="13 of 60 tensors"),
    ],
    "clip_grad_norm_ (no tensors)": [clip(None, reached=0, owned=0)],
    "clip_grad_norm_ (no tensor that is trained)": [clip(None, reached=None, owned=0)],
    "clip_grad_norm_ norm_type=1.0": [clip(0, norm=1.0)],
    "clip_grad_norm_ norm_type=inf max_norm=inf (optimizer 1)": [clip(1, norm=math.inf, threshold=math.inf)],
    "clip_grad_norm_ max_norm=inf": [clip(0, threshold=math.inf)],
    "global_norm:inf": [clip(0, "global_norm:inf", None, threshold=math.inf)],
    "my (own) clipping (of 3)": [clip(0, "my (own) clipping (of 3)", None)],
}
OTHERS = {
    ("step", ""): Event("step", 0),
    ("step", "optimizer 12"): Event("step", 12),
    ("step", "dropped by the GradScaler"): Event("step", detail="dropped by the GradScaler"),
    ("stale", "optimizer 1"): Event("stale", 1),
    ("unscale", ""): Event("unscale", 0),
    ("zero_grad", ""): Event("zero_grad"),
    ("backward", ""): Event("backward"),
    ("warning", "and so on"): Event("cut"),
}


@pytest.mark.parametrize("detail", CLIPS)
def test_the_words_of_a_clipping(detail, tmp_path, reading):
    place = {f"clip {detail}": "train.py:31", "clip clip_grad_norm_ (4 of 5 tensors)": "train.py:32"}
    run = reading(old(tmp_path / "a.gradclip", [(0, 0, [["clip", detail]])], (0, 1), places=place))
    expected = tuple(event._replace(place="train.py:31", sequence=0) for event in CLIPS[detail])
    assert run.events() == [(0, 0, expected)]


@pytest.mark.parametrize(("kind", "detail"), OTHERS)
def test_the_words_of_other_events(kind, detail, tmp_path, reading):
    run = reading(old(tmp_path / "a.gradclip", [(0, 7, ["forward", [kind, detail]])]))
    ((step, _, events),) = run.events()
    assert (step, events[1]) == (7, OTHERS[kind, detail]._replace(sequence=1))


def test_places_that_are_none(tmp_path, reading):
    for number, places in enumerate(([1], None, "x", {"step": 3})):
        run = reading(old(tmp_path / f"{number}.gradclip", [(0, 0, ["step"])], places=places))
        assert run.events()[0][2][0].place == ("3" if number == 3 else "")


def test_whose_steps_they_are(tmp_path, reading):
    dropped = ["step", "dropped by the GradScaler"]
    rows = [
        (0, 0, ["backward", "step"]),
        (1, 0, ["backward", dropped]),
        (1, 1, ["backward", ["step", "optimizer 1"]]),
        (0, 1, [dropped]),
        (2, 0, ["backward"]),  # by hand
        (0, 2, [dropped]),
        (1, 2, [dropped]),
        (0, 3, ["step", ["clip", "agc:0.01"]]),  # inside of the step
    ]
    path = old(tmp_path / "a.gradclip", rows, (0, 1, 2))
    run = reading(path)
    assert [(optimizer, step) for step, optimizer, _ in run.events()] == [(number, step) for number, step, _ in rows]
    orders = orders_of(read_run(run), 1)
    assert [order.kinds for order in orders] == [("backward", "backward", "step"), ("backward", "step"), ("backward", "step")]


WORDS = "clip_grad_norm_"
TURN = ["zero_grad", "forward", "backward"]
NEW_TURN = [Event("zero_grad"), Event("forward"), Event("backward")]
SICK = {
    "clip-after-step": ([["clip", WORDS], *TURN, "step"], [clip(0), *NEW_TURN, Event("step", 0)]),
    "clip-before-backward": ([["clip", WORDS], *TURN, "step"], [clip(0), *NEW_TURN, Event("step", 0)]),
    "clip-per-micro-batch": (
        [*TURN, ["clip", WORDS], "forward", "backward", ["clip", WORDS], "step"],
        [*NEW_TURN, clip(0), *NEW_TURN[1:], clip(0), Event("step", 0)],
    ),
    "clip-exhausted-generator": (
        [*TURN, ["clip", f"{WORDS} (no tensors)"], "step"],
        [*NEW_TURN, clip(None, reached=0, owned=0), Event("step", 0)],
    ),
    "clip-wrong-parameters": (
        [*TURN, ["clip", f"{WORDS} (no tensor that is trained)"], "step"],
        [*NEW_TURN, clip(None, reached=2, owned=0), Event("step", 0)],
    ),
    "clipped-twice": ([*TURN, ["clip", WORDS], ["clip", WORDS], "step"], [*NEW_TURN, clip(0), clip(0), Event("step", 0)]),
    "zero-grad-missing": (["forward", "backward", "stale", "step"], [*NEW_TURN[1:], Event("stale", 0), Event("step", 0)]),
    "always-clipping": ([*TURN, ["clip", WORDS], "step"], [*NEW_TURN, clip(0), Event("step", 0)]),
}


@pytest.mark.parametrize("name", SICK)
def test_the_findings_and_the_page_are_the_same(name, tmp_path, reading):
    before, after = SICK[name]
    first = int(name == "clip-after-step")  # nothing can be clipped after a step that was not yet
    olds = [(0, step, before[first * (step == 0) :]) for step in range(120)]
    news = [(0, step, after[first * (step == 0) :]) for step in range(120)]
    runs = [read_run(reading(path)) for path in (old(tmp_path / "a.gradclip", olds), new(tmp_path / "b.gradclip", news))]
    found, expected = ([finding.to_json() for finding in check(run)] for run in runs)
    assert found == expected
    assert name in {finding["name"] for finding in found}
    tables = [order_table(run.events).rows for run in runs]
    assert tables[0] == tables[1]


def test_two_optimizers_keep_their_own(tmp_path, reading):
    both, second = f"{WORDS} (optimizers 0, 1)", f"{WORDS} (optimizer 1)"
    olds, news = [], []
    for step in range(20):
        olds += [
            (0, step, [*TURN, ["clip", both], "step"]),
            (1, step, [["clip", second], ["clip", second], ["step", "optimizer 1"]]),
        ]
        news += [
            (0, step, [*NEW_TURN, clip(0, sequence=3), clip(1, sequence=3), Event("step", 0)]),
            (1, step, [clip(1), clip(1), Event("step", 1)]),
        ]
    numbers = (0, 1)
    paths = old(tmp_path / "a.gradclip", olds, numbers), new(tmp_path / "b.gradclip", news, numbers)
    before, after = (read_run(reading(path)) for path in paths)
    for number in numbers:
        pairs = zip(orders_of(before, number), orders_of(after, number), strict=True)
        assert all(a.kinds == b.kinds and [c.reached for c in a.clips] == [c.reached for c in b.clips] for a, b in pairs)
    found = [finding.to_json() for finding in check(after)]
    assert [(finding["name"], finding["optimizer"]) for finding in found] == [("clipped-twice", 1)]
    assert [finding.to_json() for finding in check(before)] == found
    assert order_table(before.events).rows == order_table(after.events).rows


def test_the_file_stays_as_it_is(tmp_path):
    path = old(tmp_path / "a.gradclip", [(0, 0, ["step"])])
    before = path.read_bytes()
    (listed,) = list_runs(tmp_path)
    with Run.open(path) as run:
        assert (listed.title, listed.status, run.status) == ("old.py", "finished", "finished")
        assert (run.steps().norm.tolist(), len(run.tensors), len(run.events())) == ([11.0], 4, 1)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            run._connection.execute("DELETE FROM main.steps")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("events", ["{", "7", "[7]", '[["step"]]', '{"a": 1}'])
def test_events_that_are_none_are_an_error_of_ours(events, tmp_path):
    path = old(tmp_path / "a.gradclip", [(0, 0, ["step"])])
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE event_patterns SET events = ?", (events,))
    connection.close()
    with pytest.raises(RunFileError, match="damaged"):
        Run.open(path)
