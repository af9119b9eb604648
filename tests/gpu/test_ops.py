"""What a compiler sees: the operations' schemas and fakes hold, and nothing breaks the graph."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradclip.torch as drop_in
from gradclip.backends import compiled, gpu

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)  # the compiler's own


def tensors(device="cpu"):
    return [torch.randn(5, device=device), torch.randn(3, 4, device=device).to(torch.bfloat16)]


@pytest.mark.parametrize("name", ["norms", "scale_", "clamp_"])
def test_the_operations_are_what_they_say(name):
    own = {"norms": (2.0,), "scale_": (torch.tensor([0.5, 1.0], dtype=torch.float64),), "clamp_": (-0.5, 0.5)}
    torch.library.opcheck(getattr(compiled, name), (tensors(), *own[name]))


def test_they_do_it_under_a_compiler():
    def brought_to_one(grads):
        norms = compiled.norms(grads, 2.0)
        compiled.scale_(grads, 1 / norms)
        return norms

    grads = tensors()
    want = [g.double().norm() for g in grads]
    found = torch.compile(brought_to_one, backend="aot_eager", fullgraph=True)(grads)
    torch.testing.assert_close(found, torch.stack(want), rtol=1e-7, atol=0)
    assert [float(g.double().norm()) for g in grads] == pytest.approx([1.0, 1.0], rel=1e-2)


@pytest.mark.parametrize("max_norm", [0.5, 1e3])
def test_the_drop_in_is_one_graph(device, max_norm):
    if not gpu.on_device(torch.empty(0, device=device)):
        pytest.skip("the kernels are switched off")
    parameters = [nn.Parameter(t) for t in tensors(device)]
    for p in parameters:
        p.grad = torch.randn_like(p)
    before = [p.grad.clone() for p in parameters]
    backend = "aot_eager" if device.type == "cpu" else "inductor"
    clip = torch.compile(lambda: drop_in.clip_grad_norm_(parameters, max_norm), backend=backend, fullgraph=True)
    want = torch.cat([g.double().flatten() for g in before]).norm()
    torch.testing.assert_close(clip().double(), want, rtol=1e-6, atol=0)
    factor = min(1.0, max_norm / (float(want) + 1e-6))
    for p, grad in zip(parameters, before, strict=True):
        torch.testing.assert_close(p.grad, (grad.float() * factor).to(grad.dtype), rtol=1e-6, atol=0)


def test_value_clipping_is_one_graph(device):
    parameters = [nn.Parameter(t) for t in tensors(device)]
    for p in parameters:
        p.grad = torch.randn_like(p)
    want = [p.grad.clone().clamp_(-0.5, 0.5) for p in parameters]
    backend = "aot_eager" if device.type == "cpu" else "inductor"
    torch.compile(lambda: drop_in.clip_grad_value_(parameters, 0.5), backend=backend, fullgraph=True)()
    assert all(torch.equal(p.grad, w) for p, w in zip(parameters, want, strict=True))
