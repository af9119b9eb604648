"""What a method prints, and what is read: defaults are left out, the long form is read too, and equal methods print alike."""

from __future__ import annotations

import pytest

import gradclip
from gradclip import Clipping, PerElement, PerGroup, PerTensor, Raise, spelling
from gradclip.recipes import RECIPES
from gradclip.thresholds import Bounds, Constant, Schedule

PRINTED = {
    gradclip.auto(): "auto",
    gradclip.zclip(): "zclip",
    gradclip.stable_spam(): "stable_spam",
    gradclip.block_rms(): "block_rms",
    gradclip.agc(): "agc",
    gradclip.global_norm(1.0): "global_norm:1.0",
    gradclip.zclip(alpha=0.9): "zclip:alpha=0.9",
    gradclip.zclip(2.0, 0.9): "zclip:2.0,0.9",
    gradclip.zclip(3, cap=1): "zclip:3.0,cap=1.0",
    gradclip.trust(per_tensor=True): "trust:per_tensor=true",
    gradclip.auto(window=50): "auto:window=50",
    gradclip.stable_spam(beta2=0.8, exclude="b"): "stable_spam:beta2=0.8,exclude=b",
    gradclip.normalize(): "normalize",
    gradclip.value(0.5, exclude="*.bias"): "value:-0.5,0.5,exclude=*.bias",
}


@pytest.mark.parametrize("clipping", PRINTED, ids=str)
def test_what_is_the_default_is_left_out(clipping):
    assert str(clipping) == PRINTED[clipping]
    assert gradclip.parse(PRINTED[clipping]) == clipping


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("zclip:2.5,0.97,25,inf", "zclip"), ("auto:0.03,4.0,100,nonfinite=skip", "auto"), ("agc:0.01,0.001", "agc"),
        ("normalise:1", "normalize"), ("normalise:0.5,soft=true", "normalize:0.5,soft=true"),
        ("Chain('normalise:0.5', 'value:1')", "Chain('normalize:0.5', 'value:-1.0,1.0')"),
    ],
)  # fmt: skip
def test_what_is_read_is_printed_in_one_way(long, short):
    assert str(gradclip.parse(long)) == short


def test_every_recipe_prints_its_name_alone_where_nothing_is_asked_for():
    for recipe in RECIPES.values():
        if all(p.default is not p.empty for p in recipe.parameters.values()):
            assert str(recipe.build()) == recipe.name


@pytest.mark.parametrize("clipping", [gradclip.zclip(), gradclip.stable_spam(), Clipping(threshold=Schedule(lambda _: 1.0))])
def test_it_is_spelled_once(clipping, monkeypatch):
    first = str(clipping)
    monkeypatch.setattr(spelling, "spell", None)
    assert str(clipping) == first


class TestCoercion:
    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ({"threshold": 2}, {"threshold": Constant(2.0)}),
            ({"norm": 1}, {"norm": gradclip.L1}),
            ({"norm": "rms"}, {"norm": gradclip.RMS}),
            ({"nonfinite": "raise"}, {"nonfinite": Raise()}),
            ({"scope": PerTensor("*.bias")}, {"scope": PerTensor(("*.bias",))}),
            ({"scope": PerTensor(["a", "b"])}, {"scope": PerTensor(("a", "b"))}),
            ({"scope": PerGroup(patterns=["a", "*"]), "threshold": [1, 2]},
             {"scope": PerGroup((), ("a", "*")), "threshold": Constant((1.0, 2.0))}),
            ({"scope": PerElement(), "threshold": 0.5}, {"scope": PerElement(), "threshold": Bounds(-0.5, 0.5)}),
        ],
    )  # fmt: skip
    def test_numbers_and_words_are_members_of_their_axis(self, given, meant):
        assert Clipping(**given) == Clipping(**meant)
        assert hash(Clipping(**given)) == hash(Clipping(**meant))
        assert gradclip.parse(repr(Clipping(**given))) == Clipping(**meant)

    def test_a_function_is_a_schedule(self):
        function = [3.0, 2.0, 1.0].__getitem__
        assert Clipping(threshold=function).threshold == Schedule(function)

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ({"scope": "per_tensor"}, TypeError, "scope must be a Scope, not str"),
            ({"rescale": 1.0}, TypeError, "rescale must be a Rescale, not float"),
            ({"norm": Constant(1.0)}, TypeError, "a norm is a number p > 0 or a Norm, not Constant"),
            ({"norm": "l"}, ValueError, "unknown norm 'l'"),
            ({"threshold": "1.0"}, TypeError, "a threshold must be a number, not str"),
            ({"threshold": gradclip.Hard()}, TypeError, "a threshold must be a number, not Hard"),
            ({"threshold": gradclip.Hard}, TypeError, "a threshold must be a number, not"),
            ({"threshold": 0}, ValueError, "a threshold must be > 0, not 0"),
            ({"nonfinite": "ignore"}, ValueError, "unknown nonfinite policy 'ignore'"),
            ({"nonfinite": None}, TypeError, "a nonfinite policy is one of skip"),
            ({"threshold": [1, 2]}, ValueError, "2 thresholds need as many groups"),
        ],
    )  # fmt: skip
    def test_what_belongs_elsewhere_is_refused(self, given, error, message):
        with pytest.raises(error, match=message):
            Clipping(**given)
