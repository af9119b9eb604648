"""Tensors become layers, and a layer's norm is the root of the sum of its tensors' squares."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradclip.diagnosis.readings.layer_groups import groups_of
from gradclip.runs import ABSENT, RunWriter
from tests.diagnosis.runs import read, recorded

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("names", "most", "expected"),
    [
        (["w", "w", "w"], 3, ["w", "w", "w"]),
        (["a.0.w", "a.0.b", "a.1.w", "a.1.b", "head.w"], 4, ["a.0", "a.1", "head.w"]),
        (["a.0.w", "b.w", "a.0.b", "a.1.w"], 3, ["a.0", "b.w", "a.1"]),
        ([f"p{i}" for i in range(6)], 3, ["p0 … p1", "p2 … p3", "p4 … p5"]),
        ([f"layers.{i}.w" for i in range(5)], 4, ["layers.0 … 1", "layers.2 … 3", "layers.4"]),
    ],
)
def test_groups_are_as_small_as_they_can_be(names, most, expected):
    groups = groups_of(names, most)
    assert [group.name for group in groups] == expected
    assert sorted(place for group in groups for place in group.members) == list(range(len(names)))


@pytest.mark.parametrize("count", [61, 148, 500, 2000, 12345])
def test_no_more_groups_than_fit_and_no_tensor_is_lost(count):
    names = [f"model.h.{i // 12}.{'abcdef'[i % 6]}.{'wb'[i % 2]}" for i in range(count)]
    groups = groups_of(names)
    assert 15 < len(groups) <= 60
    assert sorted(place for group in groups for place in group.members) == list(range(count))


def test_layers_are_roots_of_sums_of_squares(tmp_path, monkeypatch):
    monkeypatch.setattr("gradclip.runs.reader.CELLS", 8)  # in portions of two rows
    names = ["a.w", "b.w", "a.b", "b.b"]
    rows = [
        [3.0, 6.0, 4.0, 8.0],
        [3.0, ABSENT, ABSENT, ABSENT],
        [NAN, 1.0, 1.0, INF],
        [0.0, 0.0, 0.0, 0.0],
        [1e30, 0.0, 1e30, 0.0],
    ]
    layers = read(recorded(tmp_path / "a", rows, names=names), most=2).optimizers[0].layers
    assert [group.name for group in layers.groups] == ["a", "b"]
    np.testing.assert_allclose(layers.norms, [[5, 10], [3, NAN], [NAN, INF], [0, 0], [1e30 * 2**0.5, 0]], rtol=1e-6)
    assert layers.missing.tolist() == [[False, False], [False, True], [False, False], [False, False], [False, False]]
    assert layers.nonfinite.tolist() == [[False, False], [False, False], [True, True], [False, False], [False, False]]


def test_single_tensors_are_left_as_they_are(tmp_path):
    layers = read(recorded(tmp_path / "a", [[3.0, ABSENT], [NAN, 4.0]])).optimizers[0].layers
    np.testing.assert_array_equal(layers.norms, np.float32([[3, NAN], [NAN, 4]]))
    assert layers.missing.tolist() == [[False, True], [False, False]]
    assert not layers.grouped


def test_ratios_are_taken_where_both_sides_were_recorded(tmp_path):
    writer = RunWriter(tmp_path / "a", {})
    for step in (0, 2):
        writer.add_tensor_row(step, 0, "weight_norm", [2.0, 0.0])
    writer.add_tensor_row(2, 0, "update_norm", [0.02, 1.0])
    recorded(tmp_path / "a", [[1.0, 1.0]] * 3, writer=writer)
    ratios = read(tmp_path / "a").optimizers[0].ratios
    assert ratios is not None
    assert ratios.steps.tolist() == [2]
    np.testing.assert_allclose(ratios.norms, [[0.01, INF]], rtol=1e-6)


def test_what_is_counted(tmp_path):
    rows = [[1.0], [3.0], [NAN], [1.0]]
    optimizer = read(recorded(tmp_path / "a", rows, threshold=2.0, skips=[2])).optimizers[0]
    assert optimizer.steps.clip_attempts == 4
    assert optimizer.steps.clip_rate == 0.5
    assert optimizer.bad.tolist() == [False, False, True, False]


def test_a_run_without_steps(tmp_path):
    RunWriter(tmp_path / "a", {}).close()
    assert read(tmp_path / "a").length == 0
