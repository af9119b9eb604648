"""Every rule is its formula, over a run with drift, spikes and missing gradients."""

from __future__ import annotations

import numpy as np
import pytest

from gradclip import thresholds
from tests import reference
from tests.adaptive.support import RULES, run_numpy, spiky_norms


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_limits_are_the_formula(rule):
    norms = spiky_norms()
    there = norms > 0
    want, found = reference.limits(rule, norms), run_numpy(rule, norms)
    exact = 0.0101 if isinstance(rule, thresholds.Percentile) else 1e-12
    np.testing.assert_allclose(found[there], want[there], rtol=exact)
    assert (norms[there] > want[there]).any()  # the recording reaches the limit
    assert (norms[there] <= want[there]).any()


def test_the_recording_is_what_it_says():
    norms = spiky_norms()
    assert norms.shape == (1000, 3)
    assert np.isfinite(norms).all()
    assert 0.02 < (norms == 0).mean() < 0.05
    assert (norms.max(axis=0) > 20 * np.median(norms, axis=0)).all()
    assert not norms[5].any()
