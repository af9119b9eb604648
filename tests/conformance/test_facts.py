"""What a member of an axis states of itself is what it does: the code above the axes goes by it."""

from __future__ import annotations

from inspect import isabstract

import numpy as np
import pytest

import gradclip
from gradclip import rescales, scopes, thresholds
from gradclip.thresholds import Context
from tests.adaptive.support import RULES

RESCALES = [
    gradclip.Hard(), gradclip.Clamp(), gradclip.Normalize(), gradclip.Soft(), gradclip.Soft(2), gradclip.Band(),
    gradclip.Drop(),
]  # fmt: skip
SCOPES = [gradclip.Global(), gradclip.PerGroup(), gradclip.PerTensor(), gradclip.PerUnit(), gradclip.PerElement()]
GIVEN = [
    gradclip.Constant(1.0), gradclip.Constant((1.0, 2.0, 3.0)), gradclip.Bounds(-1.0, 0.5), gradclip.Bounds(-1.0, 1.0),
    gradclip.Schedule(lambda step: 1.0 + step), gradclip.Linear(1, 2, 9), gradclip.Cosine(1, 2, 9), gradclip.Relative(0.1),
    gradclip.Trust(0.1), gradclip.Stride(), gradclip.Minimum(gradclip.Trust(), gradclip.EmaRatio()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("axis", "base", "members"),
    [
        (rescales, rescales.Rescale, RESCALES), (scopes, scopes.Scope, SCOPES),
        (thresholds, thresholds.Threshold, GIVEN + RULES),
    ],
    ids=["rescale", "scope", "threshold"],
)  # fmt: skip
def test_every_public_member_is_here(axis, base, members):
    public = [getattr(axis, name) for name in axis.__all__]
    kinds = {thing for thing in public if isinstance(thing, type) and issubclass(thing, base) and not isabstract(thing)}
    assert {type(member) for member in members} == kinds


@pytest.mark.parametrize("rescale", RESCALES, ids=repr)
def test_a_rescale(rescale):
    norms = np.array([0.0, 0.1, 0.5, 1.0, 1.5, 20.0])
    factors = rescale.factors(norms, 1.0)
    least = np.minimum(1, 1 / np.where(norms == 0, 1, norms))
    assert (rescale.caps or rescale.elementwise) == np.array_equal(factors, least)
    assert rescale.drops == (0 in factors)
    assert rescale.elementwise == (rescale.formula.startswith("clamp"))
    assert not (rescale.caps and rescale.elementwise)
    assert rescale.at(7, norms) is rescale


@pytest.mark.parametrize("scope", SCOPES, ids=repr)
def test_a_scope(scope):
    entries = [scopes.Entry("a", (3, 2), group=0), scopes.Entry("b", (4, 5), group=0)]
    partition = scope.partition(entries)
    assert scope.spans_tensors == (partition.first[0] == partition.first[1])
    assert scope.splits_tensors == (sum(partition.cells) > 2)
    assert scope.per_element == (partition.count == 26)
    assert scope.per_tensor == (partition.first == (0, 1))


@pytest.mark.parametrize("rule", GIVEN + RULES, ids=lambda rule: type(rule).__name__)
def test_a_threshold(rule):
    rng = np.random.default_rng(0)
    norms = np.exp(rng.standard_normal((200, 3)))
    other = norms.copy()
    other[:, 1:] *= np.exp(rng.standard_normal((200, 2)))  # the first block as before
    weights, lr = np.ones(3), np.full(3, 0.5)

    def limits(history):
        state, found = rule.init(history[0]), []
        for step, now in enumerate(history):
            one, state = rule.limits(now, state, Context(step, weights, lr))
            found.append(one + 0 * now)
        return np.array(found)

    assert rule.groups == (3 if isinstance(getattr(rule, "value", None), tuple) else None)
    assert rule.stateful == bool(rule.init(norms[0]))
    assert rule.couples == (not np.array_equal(limits(norms)[:, 0], limits(other)[:, 0]))
    assert not (rule.blind and rule.stateful)
    if rule.blind:
        np.testing.assert_array_equal(limits(norms), limits(other))
    if rule.uniform:
        assert (limits(norms) == limits(norms)[:, :1]).all()
    low, high, _ = rule.bounds(norms[0], rule.init(norms[0]), Context(0, weights, lr))
    assert rule.symmetric == bool(np.all(-low == high))
    for missing, needed in ((Context(0, None, lr), rule.needs_weights), (Context(0, weights, None), rule.needs_lr)):
        if needed:
            with pytest.raises(ValueError, match="needs the weights"):
                rule.limits(norms[0], rule.init(norms[0]), missing)
        else:
            rule.limits(norms[0], rule.init(norms[0]), missing)
