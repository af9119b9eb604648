"""Two methods in turn, wherever one is taken; and ``Clamp``."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import gradclip
from gradclip import thresholds
from gradclip.thresholds import Constant

VALUE_THEN_NORM = gradclip.Chain(gradclip.value(1.0), gradclip.global_norm(1.0))


def made(*grads: list[float] | None) -> dict[str, nn.Parameter]:
    found = {}
    for name, grad in zip("abc", grads, strict=False):
        found[name] = nn.Parameter(torch.ones(2, dtype=torch.float64))
        found[name].grad = None if grad is None else torch.tensor(grad, dtype=torch.float64)
    return found


class TestOnce:
    def test_in_place_the_second_sees_what_the_first_left(self):
        target = made([3.0, 0.0], [0.0, -4.0])
        result = gradclip.clip_(target, VALUE_THEN_NORM)
        assert torch.cat([p.grad for p in target.values()]).tolist() == pytest.approx([2**-0.5, 0, 0, -(2**-0.5)])
        assert (float(result.norm), float(result.clipped_norm)) == pytest.approx((5.0, 1.0))
        assert float(result.coefficient) == pytest.approx(0.2)
        assert result.tensor_norms.tolist() == [3.0, 4.0]
        assert result.clipped_tensor_norms.tolist() == pytest.approx([2**-0.5] * 2)
        assert result.worst == "b"
        assert result.limits == 1.0
        assert bool(result.clipped)

    @pytest.mark.parametrize("clipping", [VALUE_THEN_NORM, str(VALUE_THEN_NORM), repr(VALUE_THEN_NORM)])
    def test_copies(self, clipping):
        grads = [torch.tensor([3.0, 0.0]), None, torch.tensor([0.0, -4.0])]
        one, none, other = gradclip.clip(grads, clipping)
        assert none is None
        assert [*one.tolist(), *other.tolist()] == pytest.approx([2**-0.5, 0, 0, -(2**-0.5)])
        assert grads[0].tolist() == [3.0, 0.0]

    def test_a_model(self):
        net = nn.Linear(2, 1)
        net.weight.grad, net.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([-4.0])
        assert {name: grad.flatten().tolist() for name, grad in gradclip.clip(net, VALUE_THEN_NORM).items()} == {
            "weight": pytest.approx([2**-0.5, 0.0]), "bias": pytest.approx([-(2**-0.5)]),
        }  # fmt: skip

    def test_nothing_to_clip(self):
        target = made([0.3, 0.4], None)
        result = gradclip.clip_(target, VALUE_THEN_NORM)
        assert target["a"].grad.tolist() == [0.3, 0.4]
        assert not bool(result.clipped)
        assert (float(result.norm), float(result.coefficient)) == (0.5, 1.0)
        assert not bool(gradclip.clip_([], VALUE_THEN_NORM).clipped)

    @pytest.mark.parametrize("first", [True, False])
    def test_clipped_by_either(self, first):
        target = made([3.0, 0.0])
        assert bool(
            gradclip.clip_(
                target, gradclip.Chain(gradclip.value(1.0 if first else 9.0), gradclip.global_norm(9.0 if first else 1.0))
            ).clipped
        )
        assert target["a"].grad.tolist() == [1.0, 0.0]

    def test_units_and_what_is_left_out(self):
        target = made([3.0, 4.0], [30.0, 40.0])
        result = gradclip.clip_(target, gradclip.Chain(gradclip.tensor_norm(1.0), gradclip.agc(0.1, exclude="b")))
        assert target["a"].grad.tolist() == pytest.approx([0.06 * 2**0.5, 0.08 * 2**0.5])
        assert target["b"].grad.tolist() == pytest.approx([0.6, 0.8])
        assert result.tensor_norms.tolist() == pytest.approx([5.0, 50.0])
        assert float(result.norm) == pytest.approx(5.0)

    def test_a_step_that_the_first_drops(self):
        target = made([3.0, 4.0])
        dropping = gradclip.Clipping(threshold=Constant(1.0), rescale=gradclip.Drop())
        result = gradclip.clip_(target, gradclip.Chain(dropping, gradclip.global_norm(1.0)))
        assert target["a"].grad is None
        assert (float(result.norm), float(result.clipped_norm)) == (5.0, 0.0)

    def test_a_sparse_gradient(self):
        table = nn.Parameter(torch.ones(4, 2))
        table.grad = torch.sparse_coo_tensor([[1, 1]], torch.tensor([[1.0, 0.0], [2.0, 4.0]]), (4, 2), check_invariants=True)
        result = gradclip.clip_([table], gradclip.Chain(gradclip.tensor_norm(2.5), gradclip.global_norm(1.0)))
        assert table.grad.to_dense()[1].tolist() == pytest.approx([0.6, 0.8])
        assert float(result.norm) == pytest.approx(5.0)


class TestNonfinite:
    BAD = (math.nan, 3.0)

    def chain(self, policy: str) -> gradclip.Chain:
        return gradclip.Chain(gradclip.value(1.0, nonfinite=policy), gradclip.global_norm(1.0, nonfinite=policy))

    def test_raise_changes_nothing(self):
        target = made([30.0, 1.0], [*self.BAD])
        with pytest.raises(gradclip.NonFiniteGradientError, match="'b'"):
            gradclip.clip_(target, self.chain("raise"))
        assert target["a"].grad.tolist() == [30.0, 1.0]

    def test_zero(self):
        target = made([30.0, 0.0], [*self.BAD])
        result = gradclip.clip_(target, self.chain("zero"))
        assert torch.cat([p.grad for p in target.values()]).tolist() == pytest.approx([2**-0.5, 0, 0, 2**-0.5])
        assert (result.nonfinite_names, result.finite) == (("b",), False)

    def test_propagate(self):
        target = made([30.0, 0.0], [*self.BAD])
        result = gradclip.clip_(target, self.chain("propagate"))
        assert all(p.grad.isnan().all() for p in target.values())
        assert not bool(result.finite)

    def test_several_policies_are_refused(self):
        with pytest.raises(ValueError, match="need the same policy") as error:
            gradclip.Chain(gradclip.value(1.0), gradclip.global_norm(1.0, nonfinite="zero"))
        assert "\n" not in str(error.value)


class TestAnyLength:
    STAGES = ("value:2.0", "tensor_norm:1.5", "agc:0.9", "global_norm:1.0")

    def test_what_comes_out_of_one_goes_into_the_next(self):
        target, by_hand = made([3.0, 0.0], [0.0, -4.0], [0.1, 0.2]), made([3.0, 0.0], [0.0, -4.0], [0.1, 0.2])
        result = gradclip.clip_(target, gradclip.Chain(*self.STAGES))
        before = gradclip.clip_(by_hand, "global_norm:inf").norm
        for stage in self.STAGES:
            last = gradclip.clip_(by_hand, stage)
        for name in target:
            assert target[name].grad.tolist() == by_hand[name].grad.tolist()
        assert float(result.norm) == float(before)
        assert float(result.clipped_norm) == float(last.clipped_norm) == pytest.approx(1.0)

    @pytest.mark.parametrize("which", range(4))
    def test_clipped_by_any(self, which):
        stages = ["value:9.0", "tensor_norm:9.0", "agc:9.0", "global_norm:9.0"]
        assert not bool(gradclip.clip_(made([3.0, 1.0]), gradclip.Chain(*stages)).clipped)
        stages[which] = stages[which].replace("9.0", "0.5")
        assert bool(gradclip.clip_(made([3.0, 1.0]), gradclip.Chain(*stages)).clipped)

    @pytest.mark.parametrize("which", range(3))
    def test_a_step_that_one_of_them_drops_ends_there(self, which):
        stages = [gradclip.norm_growth(2.0), gradclip.norm_growth(2.0)]
        stages.insert(which, gradclip.Clipping(threshold=4.0, rescale=gradclip.Drop()))
        target = made([3.0, 4.0])
        clipper = gradclip.Clipper(target, gradclip.Chain(*stages))
        result = clipper.clip_()
        assert target["a"].grad is None
        assert (float(result.norm), float(result.clipped_norm)) == (5.0, 0.0)
        taught = [key for key, value in clipper.state_dict().items() if key.endswith("previous") and value.any()]
        assert taught == [f"threshold.{i}.previous" for i in range(which)]

    def test_each_keeps_its_history_under_its_place(self):
        target = made([3.0, 4.0])
        chain = gradclip.Chain("norm_growth:2.0", "value:9.0", "zclip", "norm_growth:3.0")
        clipper = gradclip.Clipper(target, chain)
        clipper.clip_()
        state = clipper.state_dict()
        assert {key for key in state if "." in key} == {
            "threshold.0.previous", "threshold.0.largest", "threshold.2.count", "threshold.2.mean", "threshold.2.deviation",
            "threshold.3.previous", "threshold.3.largest",
        }  # fmt: skip
        again = gradclip.Clipper(target, chain)
        again.load_state_dict(state)
        assert all((again.state_dict()[key] == value) for key, value in state.items() if "." in key)

    def test_a_chain_in_a_chain_is_flat(self):
        flat = gradclip.Chain("value:1.0", "global_norm:2.0", "zclip", "norm_growth")
        nested = gradclip.Chain(gradclip.Chain("value:1.0", "global_norm:2.0"), "Chain('zclip', 'norm_growth')")
        assert nested == flat
        assert len(nested.stages) == 4
        assert str(nested) == "Chain('value:-1.0,1.0', 'global_norm:2.0', 'zclip', 'norm_growth')"


class TestSteps:
    def test_each_has_its_own_history(self):
        target = made([3.0, 4.0], [6.0, 8.0])
        clipper = gradclip.Clipper(target, gradclip.Chain(gradclip.norm_growth(2.0), gradclip.quantile(0.5, 10)))
        clipper.clip_()
        state = clipper.state_dict()
        assert state["threshold.0.previous"].tolist() == [5.0, 10.0]
        assert state["threshold.1.window"].min() == pytest.approx(125**0.5)
        assert {key for key in state if "." in key} == {
            "threshold.0.previous", "threshold.0.largest", "threshold.1.window", "threshold.1.count",
        }  # fmt: skip

    def test_only_the_second_keeps_one(self):
        target = made([3.0, 4.0])
        clipper = gradclip.Clipper(target, gradclip.Chain(gradclip.value(3.5), gradclip.norm_growth(2.0)))
        clipper.clip_()
        state = clipper.state_dict()
        assert [key for key in state if "." in key] == ["threshold.1.previous", "threshold.1.largest"]
        again = gradclip.Clipper(target, clipper.clipping)
        again.load_state_dict(state)
        assert again.step == 1

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda s: s | {"recipe": "stable_spam:0.5"}, "belongs to stable_spam:0.5, not to stable_spam: use"),
            (lambda s: s | {"threshold.1.rms": torch.ones(7)}, "was the model changed"),
            (lambda s: {k: v for k, v in s.items() if "threshold.1." not in k}, "was the model changed"),
            (lambda s: {k.replace("threshold.0.", "threshold."): v for k, v in s.items()}, "was the model changed"),
        ],
    )
    def test_a_state_of_something_else_is_refused_whole(self, change, message):
        one, other = (gradclip.Clipper(made([3.0, 4.0]), "stable_spam") for _ in range(2))
        one.clip_()
        before = other.state_dict()
        with pytest.raises(gradclip.StateError, match=message):
            other.load_state_dict(change(one.state_dict()))
        assert other.step == 0
        after = other.state_dict()
        assert after.keys() == before.keys()
        assert all(bool((after[key] == before[key]).all()) for key in before if "." in key)

    def test_either_may_need_the_learning_rate(self):
        weight = nn.Parameter(torch.tensor([3.0, 4.0]))
        optimizer = torch.optim.SGD([weight], lr=1.0)
        for chain in (
            gradclip.Chain(gradclip.value(20.0), gradclip.trust(0.1)),
            gradclip.Chain(gradclip.trust(0.1), gradclip.value(20.0)),
        ):
            with pytest.raises(gradclip.TargetError, match="needs the learning rate"):
                gradclip.Clipper([weight], chain)
            weight.grad, weight.data = torch.tensor([30.0, 40.0]), torch.tensor([3.0, 4.0])
            with gradclip.attach(optimizer, chain):
                optimizer.step()
            assert float(weight.grad.norm()) == pytest.approx(0.5)

    def test_it_needs_a_place_to_learn_in(self):
        for chain in (gradclip.stable_spam(), gradclip.Chain(gradclip.value(1.0), gradclip.zclip())):
            with pytest.raises(ValueError, match=r"use gradclip\.Clipper"):
                gradclip.clip_(made([3.0, 4.0]), chain)

    def test_a_scope_that_does_not_fit_is_said_at_once(self):
        with pytest.raises(gradclip.TargetError, match="matches no parameter"):
            gradclip.Clipper(made([3.0, 4.0]), gradclip.Chain(gradclip.value(1.0), gradclip.global_norm(1.0, exclude="heda.*")))


class TestSpelling:
    CHAINS = (
        gradclip.stable_spam(), gradclip.stable_spam(0.99, 0.6, 0.8, exclude=["head.*", "*.bias"], nonfinite="zero"),
        VALUE_THEN_NORM,
        gradclip.Chain(gradclip.aggc(gradclip.Linear(1.5, 1.1, 10, 5), patterns="*"), gradclip.agc(exclude="a'b")),
        gradclip.Chain(gradclip.Clipping(norm=gradclip.Norm(3, mean=True)), gradclip.value(1.0)),
        gradclip.Chain("value:1.0", "auto", gradclip.stable_spam(), "normalize:soft=2", "agc:exclude=a*"),
    )  # fmt: skip

    @pytest.mark.parametrize("chain", CHAINS, ids=str)
    def test_it_comes_back(self, chain):
        assert gradclip.parse(str(chain)) == chain
        assert gradclip.parse(repr(chain)) == chain
        assert hash(gradclip.parse(str(chain))) == hash(chain)

    def test_the_short_form(self):
        assert str(self.CHAINS[1]) == "stable_spam:0.99,0.6,0.8,exclude=head.*|*.bias,nonfinite=zero"
        assert gradclip.Clipping.parse("stable_spam") == gradclip.stable_spam(0.999, 0.7, 0.9)
        assert gradclip.Chain("value:1.0", "global_norm:1.0") == VALUE_THEN_NORM

    def test_what_is_no_method(self):
        for alone in ((), ("value:1.0",)):
            with pytest.raises(ValueError, match="two methods or more: write one alone as it is"):
                gradclip.Chain(*alone)
        with pytest.raises(TypeError, match="not float: write"):
            gradclip.Chain(gradclip.value(1.0), 1.0)
        with pytest.raises(gradclip.RecipeError, match="unknown recipe 'vlaue': did you mean 'value'"):
            gradclip.parse("Chain('vlaue:1.0', 'global_norm:1.0')")
        with pytest.raises(gradclip.RecipeError, match="same policy"):
            gradclip.parse("Chain('value:1.0', 'global_norm:1.0,nonfinite=zero')")


class TestClamp:
    def test_each_tensor_has_its_own_limit(self):
        target = made([3.0, 0.5], [-8.0, 0.5], [0.2, 0.1])
        clipping = gradclip.Clipping(gradclip.PerTensor(), gradclip.LINF, thresholds.Growth(1.0), gradclip.Clamp())
        clipper = gradclip.Clipper(target, clipping)
        clipper.clip_()
        for parameter, grad in zip(target.values(), ([6.0, 2.0], [9.0, -5.0], [0.1, 0.2]), strict=True):
            parameter.grad = torch.tensor(grad, dtype=torch.float64)
        result = clipper.clip_()
        assert [p.grad.tolist() for p in target.values()] == [[3.0, 2.0], [8.0, -5.0], [0.1, 0.2]]
        assert result.clipped_tensor_norms.tolist() == [3.0, 8.0, 0.2]

    def test_without_asking_the_host(self):
        """As an accelerator does it: the limits stay where they are."""
        from gradclip.backends import choose
        from gradclip.torch.plan import Stage
        from gradclip.torch.step import StepInputs
        from gradclip.torch.targets import resolve

        clipping = gradclip.Clipping(gradclip.PerTensor(("c",)), gradclip.LINF, Constant(1.0), gradclip.Clamp())
        target = made([3.0, -0.5], [0.1, 0.2], [5.0, 5.0])
        target["d"] = nn.Parameter(torch.ones(2, dtype=torch.complex64))
        target["d"].grad = torch.tensor([3 + 4j, 0.5j])
        target["e"] = nn.Parameter(torch.ones((), dtype=torch.bfloat16))
        target["e"].grad = torch.tensor(-7.0, dtype=torch.bfloat16)
        strategy = Stage(clipping, resolve(target)).strategy
        backend, step = choose([p.grad for p in target.values()]), StepInputs()
        done = strategy.act(backend, strategy.decide(backend, step), None, step)
        assert [p.grad.tolist() for p in list(target.values())[:3]] == [[1.0, -0.5], [0.1, 0.2], [5.0, 5.0]]
        assert torch.allclose(target["d"].grad, torch.tensor([0.6 + 0.8j, 0.5j]))
        assert float(target["e"].grad) == -1.0
        assert done.cells.tolist() == pytest.approx([1.0, 0.2, 5.0, 1.0, 1.0])
        assert bool(done.clipped)

    @pytest.mark.parametrize(
        ("build", "message"),
        [
            (lambda: gradclip.Clipping(gradclip.PerTensor(), gradclip.L2, Constant(1.0), gradclip.Clamp()), "use LINF, not L2"),
            (
                lambda: gradclip.Clipping(gradclip.PerElement(), gradclip.LINF, Constant(1.0), gradclip.Clamp()),
                r"use Hard\(\) with PerElement",
            ),
            (
                lambda: gradclip.Clipping(gradclip.PerUnit(), gradclip.LINF, Constant(1.0), gradclip.Clamp()),
                "blocks of whole tensors",
            ),
        ],
    )
    def test_what_does_not_fit_is_refused(self, build, message):
        with pytest.raises(ValueError, match=message):
            build()
