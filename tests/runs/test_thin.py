"""Thinning keeps what matters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradclip.runs import thin, thin_matrix


@given(hnp.arrays(np.float64, st.integers(0, 300), elements=st.floats(width=64)), st.integers(8, 60))
def test_ends_extremes_and_the_first_of_every_odd_value_are_kept(series, most):
    kept = thin(series, most)
    assert len(kept) <= most
    assert (np.diff(kept) > 0).all()
    if not len(series):
        return
    assert kept[0] == 0
    assert kept[-1] == len(series) - 1
    finite = series[np.isfinite(series)]
    if len(finite):
        assert {finite.min(), finite.max()} <= set(series[kept])
    for odd in (np.isnan, np.isposinf, np.isneginf):
        where = np.flatnonzero(odd(series))
        assert not len(where) or where[0] in kept


def test_a_short_series_stays_whole():
    assert thin([3.0, 1.0, 2.0], 8).tolist() == [0, 1, 2]


def test_every_bucket_keeps_its_own_extremes():
    """A spike up and one down in every hundred points: all of them survive in a series a tenth as long."""
    series = np.zeros(10_000)
    series[50::100], series[70::100] = 1.0, -1.0
    kept = thin(series, 1000)
    assert set(np.flatnonzero(series)) <= set(kept)


def test_a_long_series_with_one_nan():
    series = np.random.default_rng(0).standard_normal(1_000_000)
    series[123_456], series[777_777] = np.nan, np.inf
    kept = thin(series, 2000)
    assert 900 < len(kept) <= 2000
    assert {123_456, 777_777} <= set(kept)


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 60), st.integers(1, 4)), elements=st.floats(width=32)), st.integers(1, 70)
)
def test_a_thinned_matrix_has_the_largest_of_every_bucket(matrix, most):
    steps = np.arange(len(matrix)) * 3
    labels, rows = thin_matrix(steps, matrix, most)
    assert len(labels) == len(rows) <= most
    bounds = [*np.searchsorted(steps, labels), len(matrix)]
    for row, start, end in zip(rows, bounds, bounds[1:], strict=False):
        expected = [np.nan if np.isnan(column).any() else max(column.tolist()) for column in matrix[start:end].T]
        np.testing.assert_array_equal(row, np.float32(expected))


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="cannot be thinned to 7 points; keep at least 8"):
        thin([1.0], 7)
    with pytest.raises(ValueError, match="cannot be thinned to 0 rows"):
        thin_matrix([0], [[1.0]], 0)
