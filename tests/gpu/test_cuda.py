"""What only a GPU can show: no waiting for the device, graphs, streams, several GPUs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradclip
import gradclip.torch as drop_in
from gradclip.backends import gpu
from tests.backends.support import taken

pytest.importorskip("triton", reason="Triton is not installed: there are no GPU kernels to test")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SHAPES = [(300, 40), (300,), (8, 3, 5, 5), (), (70_000,)]


def model(scale=1.0, dtype=torch.float32):
    made = [nn.Parameter(torch.randn(shape, device="cuda").to(dtype)) for shape in SHAPES]
    for p in made:
        p.grad = torch.randn_like(p) * scale
    return made


def norm_of(parameters):
    return torch.cat([p.grad.double().flatten() for p in parameters]).norm()


@pytest.fixture
def no_waiting():
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("recipe", ["global_norm:1", "tensor_norm:1", "agc:0.01", "group_norm:1|0.3,patterns=0|*"])
def test_propagate_never_waits(recipe):
    """Beyond a first step, in which the layout is sent."""
    own = gradclip.Clipper(model(), f"{recipe},nonfinite=propagate")
    own.clip_()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            own.clip_()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("recipe", ["global_norm:1", "zclip"])
@pytest.mark.filterwarnings("ignore:gradclip skipped")
def test_a_fused_optimizer_is_clipped_and_skipped_without_waiting(recipe):
    parameters = model(100.0)
    optimizer = torch.optim.AdamW(parameters, lr=0.1, fused=True)
    handle = gradclip.attach(optimizer, recipe)
    optimizer.step()
    torch.cuda.synchronize()
    before = [p.clone() for p in parameters]
    parameters[1].grad[3] = float("nan")
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert bool(handle.result.skipped)
    assert all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))
    parameters[1].grad.zero_()
    optimizer.step()
    assert handle.clipper.skipped == 1
    assert handle.clipper.skipped_in_a_row == 0


def test_the_drop_in_never_waits(no_waiting):
    parameters = model()
    for max_norm in (1.0, 1e9, 0.5):
        drop_in.clip_grad_norm_(parameters, max_norm)
    drop_in.clip_grad_value_(parameters, 0.1)
    drop_in.get_total_norm([p.grad for p in parameters])


def test_new_addresses_are_sent_without_waiting(no_waiting):
    kept = []
    for _ in range(5):
        kept.append(model())
        drop_in.clip_grad_norm_(kept[-1], 1.0)


@pytest.mark.parametrize("warm", ["the same gradients", "others"])
def test_a_graph_replays(warm):
    """Captured with the gradients it was warmed up with, or with such as first appear in it."""
    parameters = model()
    static = [p.grad.clone() for p in parameters]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            drop_in.clip_grad_norm_(parameters, 1.0)
            torch.randn(9, device="cuda").clamp_(-1, 1)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for p, grad in zip(parameters, static, strict=True):
            if warm == "others":
                p.grad = grad * 1.0
            else:
                p.grad.copy_(grad)
        found = drop_in.clip_grad_norm_(parameters, 1.0)
    for scale in (1.0, 5.0, 1e-6):
        for grad in static:
            grad.normal_().mul_(scale)
        want = torch.cat([g.double().flatten() for g in static]).norm()
        taken(gpu.Gpu, [torch.ones(5, device="cuda")]).norms(2)  # memory that others use between replays
        graph.replay()
        torch.testing.assert_close(found.double(), want, rtol=1e-6, atol=0)
        torch.testing.assert_close(norm_of(parameters), want.clamp(max=1.0), rtol=2e-6, atol=0)


def test_a_table_is_used_on_another_stream():
    for _ in range(20):
        parameters = model()
        want = norm_of(parameters)
        first = taken(gpu.Gpu, [p.grad for p in parameters]).norms(2)
        other = torch.cuda.Stream()
        other.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(other):
            found = drop_in.get_total_norm([p.grad for p in parameters])
        torch.cuda.current_stream().wait_stream(other)
        torch.testing.assert_close(found.double(), want, rtol=1e-6, atol=0)
        torch.testing.assert_close(first.norm(), want, rtol=1e-6, atol=0)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_gradients_on_two_gpus_share_one_norm():
    parameters = model()
    for i in (1, 3):
        grad = parameters[i].grad
        parameters[i] = nn.Parameter(parameters[i].detach().to("cuda:1"))
        parameters[i].grad = grad.to("cuda:1")
    want = torch.cat([p.grad.double().flatten().cpu() for p in parameters]).norm()
    assert float(gradclip.clip_(parameters, gradclip.global_norm(1.0)).norm) == pytest.approx(float(want), rel=1e-6)
    assert float(torch.cat([p.grad.double().flatten().cpu() for p in parameters]).norm()) == pytest.approx(1.0, rel=1e-6)


def test_a_billion_elements():
    grad = torch.ones(1 << 30, dtype=torch.bfloat16, device="cuda")
    assert float(taken(gpu.Gpu, [grad]).norms(2)[0]) == 2.0**15
    taken(gpu.Gpu, [grad]).scale([0.5])
    assert float(taken(gpu.Gpu, [grad]).norms(float("inf"))[0]) == 0.5
    assert float(taken(gpu.Gpu, [grad]).norms(1)[0]) == 2.0**29
