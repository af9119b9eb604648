"""The place of each limit of the wiring checks, in runs that are written down."""

from __future__ import annotations

import math

import pytest

from gradclip.diagnosis.signals.clip_events import tensors_reached
from gradclip.runs import Event, RunWriter, StepRow, TensorInfo
from tests.diagnosis.support import findings


def event(word, tensors=4):
    """An event from its kind, or a clipping from ``clip=what was called:how many tensors of how many``.

    Behind the colon may also be ``none``, ``untrained``, ``unknown`` or, for the limit, ``inf``.
    """
    kind, _, called = word.partition("=")
    function, _, what = called.partition(":")
    clip = Event(kind, 0, function, None, tensors, tensors)
    if kind != "clip":
        return Event(kind, None if kind in ("forward", "backward") else 0)
    if what in ("none", "untrained"):
        return clip._replace(optimizer=None, reached=int(what == "untrained"), owned=0)
    if what == "inf":
        return clip._replace(threshold=math.inf)
    if what == "unknown":
        return clip._replace(reached=None)
    return clip._replace(reached=int(what.partition("/")[0])) if what else clip


def synthetic(path, patterns, *, amp_scale=None, tensors=4, threshold=None, norm=1.0, after=None, status="finished", **meta):
    """A run with these events, a string of kinds a step; ``clip=f:1/4`` is a clipping."""
    writer = RunWriter(path, meta)
    writer.add_tensors([TensorInfo(f"w{i}", (2,)) for i in range(tensors)])
    for step, pattern in enumerate(patterns):
        known = None if after is None else after < norm
        writer.add_step(
            StepRow(
                step=step, norm=norm, clipped_norm=after, threshold=threshold, amp_scale=amp_scale, clipped=known,
            )
        )  # fmt: skip
        writer.add_tensor_row(step, 0, "norm", [1.0] * tensors)
        writer.add_events(step, 0, [event(word, tensors) for word in pattern.split()])
    writer.close(status)
    return path


def names(path):
    return [one.name for one in findings(path, "wiring")]


USUAL = "zero_grad forward backward {} step"
BAD = {
    "clip-after-step": "clip=f zero_grad forward backward step",
    "clip-before-backward": "zero_grad forward backward clip=f forward backward step",
    "clip-before-unscale": "zero_grad forward backward clip=f unscale step",
    "clip-per-micro-batch": "zero_grad forward backward clip=f forward backward clip=f step",
    "clip-wrong-parameters": "zero_grad forward backward clip=f:1/4 step",
    "clip-exhausted-generator": "zero_grad forward backward clip=f:none step",
    "clipped-twice": "zero_grad forward backward clip=f clip=f step",
    "zero-grad-missing": "forward backward stale step",
}
GOOD = "zero_grad forward backward unscale step"


def scale(name):
    return 1024.0 if "unscale" in name else None


@pytest.mark.parametrize("name", BAD)
def test_what_is_rare_is_no_habit(name, tmp_path):
    limit = 0.4 if name == "zero-grad-missing" else 0.5
    judged = 21 if name == "zero-grad-missing" else 20  # the first step cannot show it
    for extra in (0, 1):
        bad = round(20 * limit) - 1 + extra
        path = synthetic(tmp_path / f"{extra}.gradclip", [GOOD] * (judged - bad) + [BAD[name]] * bad, amp_scale=scale(name))
        assert names(path) == [name] * extra


@pytest.mark.parametrize("name", BAD)
def test_one_step_says_nothing(name, tmp_path):
    assert names(synthetic(tmp_path / "1.gradclip", [BAD[name]], amp_scale=scale(name))) == []
    assert names(synthetic(tmp_path / "0.gradclip", [])) == []


@pytest.mark.parametrize("name", BAD)
def test_what_was_cut_short_says_nothing(name, tmp_path):
    path = tmp_path / "a.gradclip"
    writer = RunWriter(path)
    writer.add_tensors([TensorInfo("w", (2,))])
    for step in range(9):
        writer.add_step(StepRow(step=step))
        writer.add_events(step, 0, [*map(event, BAD[name].split()), Event("cut")])
    writer.close()
    assert names(path) == []


def test_a_clipping_that_has_no_step_before_it_is_not_late(tmp_path):
    pattern = BAD["clip-after-step"]
    assert names(synthetic(tmp_path / "late.gradclip", [GOOD, *[pattern] * 5])) == ["clip-after-step"]
    assert names(synthetic(tmp_path / "early.gradclip", [pattern] * 6)) == ["clip-before-backward"]


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("clip=f", "clip=g", True),
        ("clip=f:3/4", "clip=f:2/4", True),
        ("clip=f:2/4", "clip=f:2/4", False),
        ("clip=f:inf", "clip=f", False),
        ("clip=g:inf", "clip=f", False),
        ("clip=f", "zero_grad forward backward clip=f", False),
    ],
)
def test_what_counts_as_twice(first, second, told, tmp_path):
    path = synthetic(tmp_path / "a.gradclip", [USUAL.format(f"{first} {second}")] * 6)
    assert names(path) == ["clipped-twice"] * told


@pytest.mark.parametrize(
    ("after", "threshold", "severity"),
    [(0.5, 0.5, "note"), (0.4996, 0.5, "note"), (0.4994, 0.5, "warning"), (1.0, 2.0, "note")],
)
def test_of_two_thresholds_the_smaller_decides(after, threshold, severity, tmp_path):
    path = synthetic(tmp_path / "a.gradclip", [USUAL.format("clip=f clip=f")] * 6, after=after, threshold=threshold)
    (one,) = findings(path, "wiring")
    assert one.symptom.severity == severity
    assert ("below" in one.symptom.sentence) == (severity == "warning")


@pytest.mark.parametrize(("threshold", "told"), [(102.0, True), (103.0, False), (None, True)])
def test_a_threshold_that_was_scaled(threshold, told, tmp_path):
    path = synthetic(tmp_path / "a.gradclip", [BAD["clip-before-unscale"]] * 6, amp_scale=1024.0, threshold=threshold)
    assert names(path) == ["clip-before-unscale"] * told


@pytest.mark.parametrize("factor", [None, 1.0])
def test_without_a_scale_there_is_nothing_to_unscale(factor, tmp_path):
    assert names(synthetic(tmp_path / "a.gradclip", [BAD["clip-before-unscale"]] * 6, amp_scale=factor)) == []


@pytest.mark.parametrize(("norm", "told"), [(0.0, True), (0.1, False), (None, False)])
def test_gradients_that_come_after_the_reset(norm, told, tmp_path):
    """A script may put its own gradients in place of those that it has thrown away."""
    path = synthetic(tmp_path / "a.gradclip", ["forward backward zero_grad step"] * 6, norm=norm)
    assert names(path) == ["zero-grad-before-step"] * told


@pytest.mark.parametrize(
    ("unstepped", "steps", "status", "told"),
    [
        ([{"optimizer": 1, "tensors": 2}], 10, "finished", [1]),
        ([{"optimizer": 1, "tensors": 2}, {"optimizer": 2, "tensors": 1}], 10, "crashed", [1, 2]),
        ([{"optimizer": 0, "tensors": 2}], 10, "finished", [0]),
        ([{"optimizer": 1, "tensors": 2}], 9, "finished", []),
        ([{"optimizer": 1, "tensors": 0}], 10, "finished", []),
        ([{"optimizer": "1"}, 3, None], 10, "finished", []),
        ({"optimizer": 1}, 10, "finished", []),
        (None, 10, "finished", []),
    ],
)
def test_optimizers_that_never_step(unstepped, steps, status, told, tmp_path):
    path = synthetic(tmp_path / "a.gradclip", [GOOD] * steps, status=status, unstepped=unstepped)
    found = findings(path, "wiring")
    assert [one.name for one in found] == ["backward-without-step"] * len(told)
    assert [f"Optimizer {n} " in one.symptom.sentence for n, one in zip(told, found, strict=True)] == [True] * len(told)


def test_groups_of_tensors_count_as_one_at_least(tmp_path):
    """With more tensors than are shown, some in a group may be frozen: 60 groups say that 60 had gradients."""
    for clipped, told in ((60, False), (9, True)):
        path = synthetic(tmp_path / f"{clipped}.gradclip", [USUAL.format(f"clip=f:{clipped}/90")] * 6, tensors=90)
        assert names(path) == ["clip-wrong-parameters"] * told


@pytest.mark.parametrize(
    ("pattern", "numbers", "told"),
    [
        (USUAL.format("clip=f clip=f"), {"threshold": float("inf")}, []),
        (USUAL.format("clip=f:unknown clip=f:unknown"), {}, []),
        ("clip=f zero_grad forward backward clip=f step", {}, []),
        ("zero_grad forward backward clip=f forward backward step", {"after": 0.5}, []),
        ("zero_grad forward backward clip=f:2/4 forward backward step", {}, ["clip-wrong-parameters"]),
        (USUAL.format("unscale clip=f"), {"amp_scale": 1024.0}, []),
        ("zero_grad forward backward step clip=f", {"amp_scale": 1024.0}, []),
        (USUAL.format("clip=f"), {"amp_scale": 1024.0}, ["clip-before-unscale"]),
        ("step forward backward clip=f forward backward clip=f", {}, []),
        (USUAL.format("clip=f:2/4 forward backward clip=f:2/4"), {}, []),
        (USUAL.format("clip=f:none clip=f"), {}, []),
        (USUAL.format("clip=f:untrained clip=f"), {}, []),
        (USUAL.format("clip=f:untrained"), {}, ["clip-wrong-parameters"]),
        ("forward backward stale step", {}, ["zero-grad-missing"]),
    ],
)
def test_orders_of_calls(pattern, numbers, told, tmp_path):
    assert names(synthetic(tmp_path / "a.gradclip", [pattern] * 6, **numbers)) == told


def test_two_functions_have_no_threshold_in_common(tmp_path):
    path = synthetic(tmp_path / "a.gradclip", [USUAL.format("clip=f clip=g")] * 6, after=0.4, threshold=0.5)
    assert [one.symptom.severity for one in findings(path, "wiring")] == ["note"]


def test_a_run_that_goes_on_may_still_step(tmp_path):
    unstepped = [{"optimizer": 1, "tensors": 2}]
    writer = RunWriter(tmp_path / "a.gradclip", {"unstepped": unstepped})
    writer.add_tensors([TensorInfo("w", (2,))])
    for step in range(20):
        writer.add_step(StepRow(step=step))
    writer.flush()
    assert names(writer.path) == []
    writer.close()
    assert names(writer.path) == ["backward-without-step"]


@pytest.mark.parametrize(
    ("clip", "reached"),
    [
        ("clip=f", 4),
        ("clip=f:3/4", 3),
        ("clip=f:unknown", 0),
        ("clip=f:none", 0),
        ("clip=f:untrained", 0),
    ],
)
def test_what_a_clipping_reaches(clip, reached):
    assert tensors_reached(event(clip)) == reached
