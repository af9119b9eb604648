"""The calls a user makes: what may be passed, what comes back, what is refused."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

import gradclip
from gradclip.torch import Clipper, clip_grad_norm_
from tests.support import parameters


def linear() -> nn.Linear:
    net = nn.Linear(2, 1)
    net.weight.grad = torch.tensor([[3.0, 0.0]])
    net.bias.grad = torch.tensor([4.0])
    return net


TARGETS = {
    "model": lambda net: net,
    "optimizer": lambda net: torch.optim.SGD(net.parameters(), lr=0.1),
    "named optimizer": lambda net: torch.optim.SGD(net.named_parameters(), lr=0.1),
    "generator": lambda net: net.parameters(),
    "named generator": lambda net: net.named_parameters(),
    "list": lambda net: list(net.parameters()),
    "dict": lambda net: dict(net.named_parameters()),
    "pairs": lambda net: list(net.named_parameters()),
}


@pytest.mark.parametrize("of", TARGETS.values(), ids=TARGETS)
def test_every_kind_of_target(of):
    net = linear()
    result = gradclip.clip_(of(net), "global_norm:1")
    assert float(result.norm) == 5.0
    assert net.weight.grad[0].tolist() == pytest.approx([0.6, 0])
    assert net.bias.grad.tolist() == pytest.approx([0.8])


def test_names_are_the_best_known():
    net = linear()
    assert gradclip.clip_(net, "global_norm:1").names == ("weight", "bias")
    assert gradclip.clip_(torch.optim.SGD(net.named_parameters(), lr=0.1), "global_norm:1").names == ("weight", "bias")
    assert gradclip.clip_(torch.optim.SGD(net.parameters(), lr=0.1), "global_norm:1").names == ("group0.0", "group0.1")
    assert gradclip.clip_(net.parameters(), "global_norm:1").names == ("0", "1")


def test_one_parameter():
    net = linear()
    assert float(gradclip.clip_(net.bias, "global_norm:1").norm) == 4
    assert net.weight.grad.tolist() == [[3, 0]]


def test_conjugate_views():
    """A lazy conjugate is clipped where it lies."""
    p = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    p.grad = torch.tensor([3 + 4j, 0]).conj()
    assert float(gradclip.clip_([p], "global_norm:1").norm) == 5
    torch.testing.assert_close(p.grad.resolve_conj(), torch.tensor([0.6 - 0.8j, 0]))


def test_the_drop_in_traces_without_a_break():
    net = linear()
    clip = torch.compile(clip_grad_norm_, fullgraph=True, backend="eager")
    assert float(clip(list(net.parameters()), 1.0)) == 5
    assert net.bias.grad.tolist() == pytest.approx([0.8])


def test_the_result_says_what_was_done():
    result = gradclip.clip_(linear(), "global_norm:1")
    assert result.asdict() == {
        "norm": 5.0, "clipped_norm": 1.0, "coefficient": pytest.approx(0.2), "clipped": True, "finite": True,
        "skipped": False, "worst": "bias", "tensor_norms": {"weight": 3.0, "bias": 4.0},
    }  # fmt: skip
    assert repr(result) == "ClipResult(norm=5, clipped_norm=1, coefficient=0.2, clipped, worst='bias')"
    assert result.clipped_tensor_norms.tolist() == pytest.approx([0.6, 0.8])
    assert isinstance(result.norm, torch.Tensor)


def test_out_of_place_keeps_the_form():
    a, b = torch.tensor([3.0]), torch.tensor([4.0])
    assert gradclip.clip((a, None, b), "global_norm:1")[1] is None
    assert isinstance(gradclip.clip((a, b), "global_norm:1"), tuple)
    assert gradclip.clip({"x": a, "y": b}, "global_norm:1").keys() == {"x", "y"}
    assert gradclip.clip(b, "global_norm:1").tolist() == [1.0]
    net = linear()
    copies = gradclip.clip(net, "agc:0.01")
    assert copies.keys() == {"weight", "bias"}
    assert float(copies["weight"].norm()) == pytest.approx(0.01 * float(net.weight.detach().norm()))
    assert net.weight.grad.tolist() == [[3, 0]]
    assert (a.item(), b.item()) == (3, 4)


def test_what_is_below_is_copied_too():
    a = torch.tensor([0.5])
    new = gradclip.clip([a], "global_norm:1")[0]
    assert torch.equal(new, a)
    assert new.data_ptr() != a.data_ptr()


def test_tensor_norms():
    assert gradclip.tensor_norms(linear()) == {"weight": 3.0, "bias": 4.0}
    assert gradclip.tensor_norms(linear(), norm="inf") == {"weight": 3.0, "bias": 4.0}
    assert gradclip.tensor_norms(linear(), norm="rms")["weight"] == pytest.approx(3 / 2**0.5)
    frozen = linear()
    frozen.bias.grad = None
    assert gradclip.tensor_norms(frozen) == {"weight": 3.0}
    frozen.weight.grad[0, 0] = torch.nan
    assert str(gradclip.tensor_norms(frozen)) == "{'weight': nan}"
    assert frozen.weight.grad[0, 1] == 0


def test_methods_are_values():
    recipe = gradclip.agc(0.02, exclude="head.*")
    assert pickle.loads(pickle.dumps(recipe)) == recipe == copy.deepcopy(recipe)
    assert {recipe: 1}[gradclip.parse("agc:0.02,exclude=head.*")] == 1


class TestClipper:
    def test_state_round_trips(self):
        target = parameters()
        clipper = Clipper(target, "global_norm:linear(2,1,10)")
        limits = [clipper.clip_().limits for _ in range(4)]
        state = torch.load(_saved(clipper.state_dict()), weights_only=True)
        other = Clipper(target, "global_norm:linear(2,1,10)")
        other.load_state_dict(state)
        assert other.state_dict() == clipper.state_dict()
        assert limits == pytest.approx([2, 1.9, 1.8, 1.7])
        assert other.clip_().limits == clipper.clip_().limits == pytest.approx(1.6)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"recipe": "global_norm:2.0"}, r"belongs to global_norm:2\.0, not to global_norm:1\.0"),
            ({"version": 99}, "version 99"),
            ({"step": None}, "not a saved state: 'step' missing"),
        ],
    )
    def test_another_state_is_refused_whole(self, change, message):
        clipper = Clipper(linear(), "global_norm:1")
        clipper.clip_()
        state = {**clipper.state_dict(), "skipped": 5, **change}
        state = {key: value for key, value in state.items() if value is not None}
        with pytest.raises(gradclip.StateError, match=message):
            clipper.load_state_dict(state)
        assert (clipper.step, clipper.skipped) == (1, 0)


class TestBadInput:
    """Every refusal comes before the first gradient is touched."""

    @pytest.fixture
    def net(self):
        net = linear()
        yield net
        assert net.weight.grad.tolist() == [[3, 0]]
        assert net.bias.grad.tolist() == [4]

    @pytest.mark.parametrize(
        ("recipe", "message"),
        [
            ("global_nrom:1", "unknown recipe 'global_nrom': did you mean 'global_norm'?"),
            ("zzz", "unknown recipe 'zzz': there are global_norm, value"),
            ("global_norm", "missing 1 required positional argument: 'threshold'"),
            ("global_norm:0", "a threshold must be > 0, not 0: write a positive number, or inf to measure without clipping"),
            ("global_norm:-1", "must be > 0, not -1"),
            ("global_norm:nan", "must be a number, not NaN"),
            ("global_norm:one", "must be a number, not str"),
            ("global_norm:1,nrom=2", "global_norm has no argument 'nrom': it takes threshold, norm, exclude, nonfinite"),
            ("global_norm:1,norm=0", "p must be > 0"),
            ("global_norm:1,nonfinite=ignore", "unknown nonfinite policy 'ignore': write skip, raise, zero, propagate"),
            ("global_norm:linear(1,2", "unbalanced"),
            ("global_norm:linear(1,2,0)", "steps >= 1, not 0"),
            ("global_norm:step(1,2,3)", r"write linear\(start,end,steps\)"),
            ("global_norm:1|2", "2 thresholds need as many groups"),
            ("value:1,-1", r"the lower bound 1 is above the upper bound -1: write value\(-1, 1\)"),
            ("value:1,2", "must hold 0"),
            ("agc:0", "ratio to the weights' norm must be > 0"),
            ("agc:0.1,axis=5", r"unit axis 5 does not exist in 'weight' of shape \(1, 2\)"),
            ("agc:0.1,exclude=heda.*", r"'heda\.\*' matches no parameter: the names are weight, bias"),
            ("group_norm:1", "pass the optimizer, or name the groups"),
            ("group_norm:1,patterns=weight", "'bias' is in none of the groups 'weight'"),
            ("group_norm:1|2,patterns=a|b|c", "2 thresholds for 3 groups"),
        ],
    )
    def test_recipes(self, net, recipe, message):
        with pytest.raises(ValueError, match=message):
            gradclip.clip_(net, recipe)

    def test_not_a_recipe(self, net):
        with pytest.raises(TypeError, match=r"not float: write gradclip\.global_norm\(1\.5\)"):
            gradclip.clip_(net, 1.5)
        with pytest.raises(TypeError, match=r"call it first, for example global_norm\(1\.0\)"):
            gradclip.clip_(net, gradclip.global_norm)
        with pytest.raises(TypeError, match="scope must be a Scope, not Norm"):
            gradclip.Clipping(gradclip.L2)

    def test_gradients_instead_of_parameters(self, net):
        with pytest.raises(TypeError, match="looks like a gradient"):
            gradclip.clip_([p.grad for p in net.parameters()], "global_norm:1")
        with pytest.raises(TypeError, match="looks like a gradient"):
            gradclip.clip_([p * 2 for p in net.parameters()], "global_norm:1")

    def test_an_exhausted_generator(self, net):
        generator = net.parameters()
        list(generator)
        with pytest.raises(gradclip.TargetError, match="already consumed"):
            gradclip.clip_(generator, "global_norm:1")
        with pytest.raises(gradclip.TargetError, match="iterator"):
            gradclip.clip((g for g in [torch.ones(1)]), "global_norm:1")

    @pytest.mark.parametrize("target", [5, "model", None, [1, 2], [nn.Linear(1, 1)], {"a": 1}])
    def test_something_else(self, target):
        with pytest.raises(TypeError, match=r"expected|must be a parameter"):
            gradclip.clip_(target, "global_norm:1")

    def test_weights_that_are_missing(self):
        grads = [torch.tensor([3.0])]
        with pytest.raises(gradclip.TargetError, match="needs the weights"):
            gradclip.clip(grads, "agc:0.1")
        with pytest.raises(TypeError, match="one for each gradient"):
            gradclip.clip(grads, "agc:0.1", params=[None])
        with pytest.raises(ValueError, match=r"zip|one for each"):
            gradclip.clip(grads, "agc:0.1", params=[torch.ones(1), torch.ones(1)])
        assert gradclip.clip(grads, "agc:0.1", params=[torch.tensor([10.0])])[0].tolist() == [1.0]

    def test_a_schedule_that_returns_nonsense(self, net):
        with pytest.raises(ValueError, match="the schedule's threshold at step 7 must be > 0, not -1"):
            gradclip.clip_(net, gradclip.global_norm(lambda step: 6 - step), step=7)

    def test_integers_and_odd_layouts(self, net):
        with warnings.catch_warnings(action="ignore"):
            csr = torch.eye(2).to_sparse_csr()
        with pytest.raises(gradclip.TargetError, match=r"layout torch\.sparse_csr.*to_dense"):
            gradclip.clip([torch.ones(2), csr], "global_norm:1")
        with pytest.raises(gradclip.TargetError, match=r"dtype torch\.int64"):
            gradclip.clip([torch.ones(2), torch.ones(2, dtype=torch.int64)], "global_norm:1")


def _saved(state):
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer
