"""``clip`` on gradients that are part of a graph: differentiable, under transforms, and compiled."""

from __future__ import annotations

import itertools
import math
import warnings

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functional_call, grad, jacfwd, jacrev, vmap

import gradclip
from gradclip import Clipping, NonFiniteGradientError, TargetError
from gradclip.backends import Functional, choose
from gradclip.recipes import RECIPES
from gradclip.rescales import Band, Clamp, Drop, Hard, Normalize, Soft
from gradclip.scopes import Global, PerElement, PerGroup, PerTensor, PerUnit
from gradclip.thresholds import Relative

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # PyTorch's own forward mode calls it

D = torch.float64
SCOPES = {
    "global": Global(), "group": PerGroup(patterns=("a*", "*")), "tensor": PerTensor(), "unit": PerUnit(),
    "element": PerElement(), "exclude": Global(exclude="b"),
}  # fmt: skip
RESCALES = [Hard(), Clamp(), Soft(), Soft(3.0), Normalize(), Band(0.5), Drop()]
SPELLINGS = [
    "global_norm:1.0", "global_norm:1.0,norm=inf", "group_norm:1.0|0.5,patterns=a|*", "tensor_norm:0.7", "value:0.4",
    "value:-0.2,0.6", "agc:0.3", "block_rms:0.4", "normalize:0.3", "normalize:0.5,soft=true", "global_norm:linear(2.0,0.5,10)",
    "Chain('value:0.5', 'tensor_norm:0.6', 'global_norm:0.5')",
]  # fmt: skip


def two(*batch):
    """Two gradients, the second of which is small."""
    return torch.randn(*batch, 2, 3, dtype=D), 0.05 * torch.randn(*batch, 3, dtype=D)


def clips(method, weights=None):
    """Clip two gradients, to be differentiated with respect to both; a dropped one is left out."""

    def clipped(a, b):
        found = gradclip.clip({"a": a, "b": b}, method, params=weights, step=3)
        return tuple(found.values())

    return clipped


def weights():
    return {"a": torch.tensor([[1.0, 2.0, 2.0], [0.1, 0.0, 0.0]], dtype=D), "b": torch.tensor([0.5, 0.0, -0.5], dtype=D)}


def assert_same(found, expected, **tolerance):
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, **tolerance)


@pytest.mark.parametrize("rescale", RESCALES, ids=repr)
@pytest.mark.parametrize("scope", SCOPES)
def test_every_point_of_the_algebra_has_its_derivatives(scope, rescale):
    checked = 0
    for norm, threshold in itertools.product([1, 2, 3, math.inf, "rms"], [0.3, 1.5]):
        try:
            method = Clipping(SCOPES[scope], norm, threshold, rescale)
        except ValueError:
            continue  # two axes that do not fit together
        a, b = (g.requires_grad_() for g in two())
        expected = clips(method)(a.detach(), b.detach())
        found = clips(method)(a, b)
        assert [g is None for g in found] == [g is None for g in expected]
        if None in found:
            continue
        assert_same(found, expected, rtol=1e-12, atol=0)
        assert gradcheck(clips(method), (a, b), check_forward_ad=True)
        assert gradgradcheck(clips(method), (a, b), fast_mode=True)
        checked += 1
    assert checked or isinstance(rescale, Clamp)


def test_every_recipe_without_a_history_is_differentiable():
    stateless = {
        name for name, recipe in RECIPES.items() if not any(s.threshold.stateful for s in recipe.build(*_one(recipe)).stages)
    }
    spelled = {spelling.partition(":")[0] for spelling in SPELLINGS}
    assert stateless - spelled == {"trust"}  # which needs an optimizer's learning rate
    for spelling in SPELLINGS:
        a, b = (g.requires_grad_() for g in two())
        run = clips(spelling, weights() if "agc" in spelling else None)
        assert_same(run(a, b), run(a.detach(), b.detach()), rtol=1e-12, atol=1e-300)
        assert gradcheck(run, (a, b), check_forward_ad=True), spelling
        assert gradgradcheck(run, (a, b)), spelling


def _one(recipe):
    return [1.0] if next(iter(recipe.parameters), "") in ("threshold", "low") else []


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("rescale", [Hard(), Clamp(), Normalize(), Band(0.5)], ids=repr)
def test_a_limit_relative_to_the_weights_has_a_derivative_with_respect_to_them(scope, rescale):
    if isinstance(rescale, Clamp) and SCOPES[scope].splits_tensors:
        return
    method = Clipping(SCOPES[scope], math.inf if isinstance(rescale, Clamp) else 2, Relative(0.4), rescale)
    start = [t.requires_grad_() for t in (*two(), *(torch.randn(*w.shape, dtype=D) for w in weights().values()))]

    def run(a, b, v, w):
        return tuple(gradclip.clip({"a": a, "b": b}, method, params={"a": v, "b": w}).values())

    assert gradcheck(run, start, check_forward_ad=True)
    assert gradgradcheck(run, start)
    assert any(d.abs().sum() > 0 for d in torch.autograd.grad(run(*start)[0].sum(), start[2:]))


def test_weights_alone_do_not_make_the_result_part_of_a_graph():
    a, b = two()
    parameters = {name: torch.nn.Parameter(w) for name, w in weights().items()}
    assert not any(g.requires_grad for g in clips("agc:0.01", parameters)(a, b))


def test_a_meta_gradient_goes_through_the_clipping_of_the_inner_step():
    w = torch.tensor([2.0, 3.0], dtype=D, requires_grad=True)
    (g,) = torch.autograd.grad((w**3).sum() / 3, [w], create_graph=True)
    fast = w - 0.1 * gradclip.clip(g, "global_norm:1.0")
    (found,) = torch.autograd.grad((fast**2).sum() / 2, [w])
    # by hand: g = (4, 9), n^2 = 97, c = g / n, dc/dg = (I - g g^T / n^2) / n, dg/dw = diag(4, 6)
    n = math.sqrt(97)
    x, y = 2 - 0.4 / n, 3 - 0.9 / n
    along = (4 * x + 9 * y) / 97
    by_hand = [x - 0.1 * 4 * (x - 4 * along) / n, y - 0.1 * 6 * (y - 9 * along) / n]
    assert found.tolist() == pytest.approx(by_hand, rel=1e-14)
    assert by_hand == pytest.approx([1.936776, 2.923692], rel=1e-6)  # first order alone: 1.959386

    def outer(w):
        inner = grad(lambda v: (v**3).sum() / 3)(w)
        return ((w - 0.1 * gradclip.clip(inner, "global_norm:1.0")) ** 2).sum() / 2

    assert grad(outer)(w.detach()).tolist() == pytest.approx(by_hand, rel=1e-14)


def test_below_the_limit_the_meta_gradient_is_the_unclipped_one():
    w = torch.tensor([2.0, 3.0], dtype=D, requires_grad=True)
    (g,) = torch.autograd.grad((w**3).sum() / 3, [w], create_graph=True)
    fast = w - 0.1 * gradclip.clip(g, "global_norm:100.0")
    (found,) = torch.autograd.grad((fast**2).sum() / 2, [w])
    assert found.tolist() == pytest.approx([1.6 * 0.6, 2.1 * 0.4], rel=1e-14)  # (w - 0.1 w^2)(1 - 0.2 w)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("rescale", [*RESCALES, Soft(0.5)], ids=repr)
def test_a_gradient_of_zeros_has_derivatives_that_are_numbers(scope, rescale):
    for norm in (1, 2, 3, 0.5, math.inf, "rms"):
        try:
            method = Clipping(SCOPES[scope], norm, 0.5, rescale, "propagate")
        except ValueError:
            continue
        for a, b in (
            (torch.zeros(2, 3), torch.zeros(3)),
            (torch.zeros(2, 3), torch.full((3,), 0.1)),
            (torch.eye(2, 3), torch.zeros(3)),
        ):
            start = [t.to(D).requires_grad_() for t in (a, b)]
            total = sum((g * torch.arange(1.0, 4)).sum() for g in clips(method)(*start) if g is not None)
            if not isinstance(total, torch.Tensor):
                continue
            first = torch.autograd.grad(total, start, create_graph=True, materialize_grads=True)
            assert all(bool(d.isfinite().all()) for d in first), (method, a, b)
            assert_same(clips(method)(*start), clips(method)(a.to(D), b.to(D)), rtol=1e-12, atol=0)
            if norm not in (0.5, 1.5) and any(d.requires_grad for d in first):
                squares = sum((d**2).sum() for d in first)
                second = torch.autograd.grad(squares, start, allow_unused=True, materialize_grads=True)
                assert all(bool(d.isfinite().all()) for d in second), (method, a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize(
    "spelling", ["global_norm:1.0", "tensor_norm:0.5,norm=3", "agc:0.3", "value:0.4", "normalize:2.0,norm=inf"]
)
def test_values_are_those_of_constants_in_every_dtype(dtype, spelling):
    a, b = torch.linspace(-3, 3, 6).reshape(2, 3).to(dtype), torch.tensor([0.1, -0.5, 2.0]).to(dtype)
    run = clips(spelling, weights())
    found = run(a.clone().requires_grad_(), b)
    assert found[0].requires_grad
    assert found[0].dtype == dtype
    assert_same(found, run(a, b))


def test_complex_gradients_have_derivatives():
    for spelling in ("global_norm:1.0", "value:0.5", "tensor_norm:0.5,norm=3", "agc:0.4"):
        a, b = (torch.complex(g, g.flip(0)).requires_grad_() for g in two())
        run = clips(spelling, weights())
        assert_same(run(a, b), run(a.detach(), b.detach()), rtol=1e-12, atol=0)
        assert gradcheck(run, (a, b)), spelling


@pytest.mark.parametrize("rescale", [rescale for rescale in RESCALES if not isinstance(rescale, Clamp)], ids=repr)
def test_a_group_without_a_limit_passes_derivatives_as_they_are(rescale):
    a, b = (g.requires_grad_() for g in two())
    found = clips(Clipping(PerGroup(patterns=("a", "*")), threshold=(math.inf, 1.0), rescale=rescale))(a, b)
    (derivative,) = torch.autograd.grad((found[0] * torch.arange(1.0, 4)).sum(), a)
    assert derivative.tolist() == [[1.0, 2.0, 3.0]] * 2


def test_extreme_sizes_neither_overflow_nor_vanish():
    for size in (1e-300, 1e-200, 1e200, 1e300):
        g = (torch.tensor([3.0, 4.0], dtype=D) * size).requires_grad_()
        for method in ("global_norm:1e-100", "tensor_norm:1e-100,norm=3", "group_norm:1e-100,patterns=*", "value:1e-100"):
            found = gradclip.clip({"g": g}, method)["g"]
            torch.testing.assert_close(found, gradclip.clip({"g": g.detach()}, method)["g"], rtol=1e-12, atol=0)
            (derivative,) = torch.autograd.grad(found.sum(), g)
            assert bool(derivative.isfinite().all()), (method, size)
    g = torch.tensor([3e10, 4e10], requires_grad=True)  # a factor below the smallest normal float32
    assert (gradclip.clip(g, "global_norm:5e-30") / 1e-30).tolist() == pytest.approx([3.0, 4.0], rel=1e-6)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_under_vmap_every_sample_is_clipped_by_itself(spelling):
    a, b = two(5)
    run = clips(spelling, weights())
    each = [run(a[i], b[i]) for i in range(5)]
    assert_same(vmap(run)(a, b), [torch.stack(parts) for parts in zip(*each, strict=True)], rtol=1e-12, atol=1e-300)
    with torch.no_grad():
        assert_same(vmap(run)(a, b), vmap(run)(a, b))


def test_per_sample_gradients_of_a_model_are_clipped_in_one_line():
    model = torch.nn.Linear(3, 2)
    inputs, targets = torch.randn(6, 3), torch.randn(6, 2)
    parameters = dict(model.named_parameters())

    def loss(parameters, x, y):
        return ((functional_call(model, parameters, (x,)) - y) ** 2).sum()

    per_sample = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, inputs, targets)
    found = vmap(lambda g: gradclip.clip(g, "global_norm:1.0"))(per_sample)
    for i in range(6):
        model.zero_grad()
        loss(parameters, inputs[i], targets[i]).backward()
        gradclip.clip_(model, "global_norm:1.0")
        assert_same(
            [found[name][i].detach() for name in parameters], [p.grad for p in parameters.values()], rtol=1e-5, atol=1e-7
        )


def test_weights_may_be_batched_too():
    a, b = two(4)
    v, w = (torch.randn(4, *t.shape, dtype=D) for t in weights().values())

    def run(a, b, v, w):
        return gradclip.clip([a, b], "agc:0.2", params=[v, w])

    each = [run(*(t[i] for t in (a, b, v, w))) for i in range(4)]
    assert_same(vmap(run)(a, b, v, w), [torch.stack(parts) for parts in zip(*each, strict=True)], rtol=1e-12, atol=0)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_jacobians_by_transforms_are_those_of_autograd(spelling):
    a, b = two()
    run = clips(spelling, weights())
    expected = torch.autograd.functional.jacobian(run, (a, b))
    for by in (jacrev, jacfwd):
        for found, right in zip(by(run, argnums=(0, 1))(a, b), expected, strict=True):
            assert_same(found, right, rtol=1e-10, atol=1e-12)


def test_forward_mode_keeps_its_tangents():
    g, t = torch.tensor([3.0, 4.0], dtype=D), torch.tensor([1.0, 0.0], dtype=D)
    with forward_ad.dual_level():
        clipped = gradclip.clip(forward_ad.make_dual(g, t), "global_norm:1.0")
        tangent = forward_ad.unpack_dual(clipped).tangent
    assert tangent.tolist() == pytest.approx([(1 - 9 / 25) / 5, -12 / 25 / 5], rel=1e-14)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_policies_under_vmap(bad):
    a, b = two(3)
    broken = a.clone()
    broken[1, 0, 0] = bad
    whole = vmap(clips("global_norm:0.5"))(a, b)
    skipped = vmap(clips("global_norm:0.5"))(broken, b)
    for found, right in zip(skipped, whole, strict=True):
        assert not found[1].any()
        assert_same(found[[0, 2]], right[[0, 2]])
    zeroed = broken.clone()
    zeroed[1, 0, 0] = 0
    assert_same(vmap(clips("global_norm:0.5,nonfinite=zero"))(broken, b), vmap(clips("global_norm:0.5"))(zeroed, b))
    propagated = vmap(clips("global_norm:0.5,nonfinite=propagate"))(broken, b)
    assert not propagated[0][1].isfinite().all()
    assert propagated[0][[0, 2]].isfinite().all()
    with pytest.raises(TargetError, match="use 'skip'"):
        vmap(clips("global_norm:0.5,nonfinite=raise"))(a, b)

    def total(a, b):
        return sum((g**2).sum() for g in vmap(clips("global_norm:0.5"))(a, b))

    derivative = grad(total)(broken, b)
    assert not derivative[1].any()
    assert derivative.isfinite().all()


def test_policies_with_a_graph_are_those_without():
    a, b = two()
    a[0, 0] = math.nan
    a.requires_grad_()
    with pytest.warns(RuntimeWarning, match="skipped a step: non-finite gradient in 'a'"):
        assert clips("global_norm:1.0")(a, b) == (None, None)
    with pytest.raises(NonFiniteGradientError, match="'a'"):
        clips("global_norm:1.0,nonfinite=raise")(a, b)
    right = clips("global_norm:1.0,nonfinite=zero")(a.detach(), b)
    assert_same(clips("global_norm:1.0,nonfinite=zero")(a, b), right)
    assert clips("global_norm:1.0,nonfinite=propagate")(a, b)[1].isnan().all()


def test_what_is_dropped_is_none_with_a_graph_and_zeros_under_a_transform():
    method = Clipping(PerTensor(), threshold=1.0, rescale=Drop())
    a, b = torch.full((2, 3), 5.0), torch.full((3,), 0.1)
    found = clips(method)(a.clone().requires_grad_(), b)
    assert found[0] is None
    assert found[1].tolist() == b.tolist()
    assert not vmap(clips(method))(a[None], b[None])[0].any()


COMPILED = [
    gradclip.global_norm(1.0, 3, exclude="b", nonfinite="propagate"),
    gradclip.group_norm({"a*": 1.0, "*": 0.02}, nonfinite="propagate"),
    gradclip.tensor_norm(0.5, "rms", nonfinite="propagate"),
    gradclip.value(0.3, nonfinite="propagate"),
    gradclip.agc(0.2, nonfinite="propagate"),
]


@pytest.mark.parametrize("method", COMPILED, ids=str)
def test_compiled_without_a_break(method):
    torch._dynamo.reset()
    run = clips(method, weights())
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    start = [g.requires_grad_() for g in two()]
    expected, found = run(*start), compiled(*start)
    assert_same(found, expected)
    of_expected, of_found = (torch.autograd.grad(sum((g**3).sum() for g in gs), start) for gs in (expected, found))
    assert_same(of_found, of_expected)
    per_sample = two(4)
    assert_same(torch.compile(vmap(run), fullgraph=True, backend="aot_eager")(*per_sample), vmap(run)(*per_sample))


def test_nothing_is_changed_and_nothing_is_shared():
    a, b = (g.requires_grad_() for g in two())
    before = a.detach().clone(), b.detach().clone()
    for method in ("global_norm:0.1", "global_norm:100.0", "global_norm:0.1,exclude=b", "value:0.1,exclude=b"):
        found = clips(method)(a, b)
        assert_same((a.detach(), b.detach()), before)
        assert found[1].data_ptr() != b.data_ptr()


def test_without_a_graph_the_result_has_none():
    a, b = two()
    assert not any(g.requires_grad for g in clips("global_norm:0.1")(a, b))
    with torch.no_grad():
        assert not any(g.requires_grad for g in clips("global_norm:0.1")(a.requires_grad_(), b))


def test_in_place_a_gradient_with_a_graph_is_still_changed_itself():
    w = torch.nn.Parameter(torch.tensor([2.0, 3.0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of the reference cycle that create_graph makes
        (w**3).sum().backward(create_graph=True)
    kept = w.grad
    gradclip.clip_([w], "global_norm:1.0")
    assert w.grad is kept
    assert float(kept.detach().norm()) == pytest.approx(1.0)
    w.grad = None  # break the cycle


def test_sentences_for_what_cannot_be():
    sparse = torch.eye(3).to_sparse().requires_grad_()
    with pytest.raises(TargetError, match=r"'w' is sparse and part of a graph: clip grad\.to_dense\(\)"):
        gradclip.clip({"w": sparse}, "global_norm:1.0")
    with pytest.raises(TargetError, match="one bound on"):
        gradclip.clip(torch.ones(2, dtype=torch.complex64, requires_grad=True), "value:-1,2")
    with pytest.raises(ValueError, match="learns from past steps"):
        gradclip.clip(torch.ones(2, requires_grad=True), "zclip")
    with pytest.raises(TargetError, match="learning rate"):
        gradclip.clip(torch.ones(2, requires_grad=True), "trust:0.1", params=torch.ones(2))


IN_PLACE = {
    "clip_": lambda p: gradclip.clip_([p], "global_norm:1.0").norm,
    "tensor_norms": lambda p: gradclip.tensor_norms([p])["0"],
    "clip_grad_norm_": lambda p: gradclip.torch.clip_grad_norm_([p], 1.0),
}


@pytest.mark.parametrize("transform", [vmap, lambda f: grad(lambda g: f(g).sum())], ids=["vmap", "grad"])
@pytest.mark.parametrize("call", IN_PLACE.values(), ids=IN_PLACE)
def test_in_place_under_a_transform_is_refused_in_a_sentence(call, transform):
    def run(g):
        p = torch.nn.Parameter(torch.ones(3))
        p.grad = g * 1
        call(p)
        return p.grad

    with pytest.raises(TargetError, match=r"use gradclip\.clip\(grads, \.\.\.\)"):
        transform(run)(torch.ones(3, 3) if transform is vmap else torch.ones(3))


def test_the_functional_backend_agrees_with_the_stock_one_on_every_verb():
    tensors = [torch.randn(4, 3), None, torch.randn(5)]
    for p in (1, 2, 3, 5, math.inf):
        torch.testing.assert_close(Functional(tensors).norms(p), choose(tensors).norms(p), rtol=1e-6, atol=0)
    ours, stock = Functional(tensors), choose([None if t is None else t.clone() for t in tensors])
    for backend in (ours, stock):
        backend.scale([0.3, 1.0, 2.0])
        backend.clamp_each([0.25, math.inf, math.inf])
        backend.clamp(-0.1, 0.7, [False, False, True])
    assert_same([t for t in ours.tensors if t is not None], [t for t in stock.tensors if t is not None])
    for low, high in ((-0.1, 0.7), (-0.05, 0.7), (-0.3, 0.2), (-0.3, 1.0)):
        assert bool(ours.outside(low, high)) == bool(stock.outside(low, high))
