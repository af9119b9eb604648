"""Clipping inside what ``torch.compile`` compiles: the same weights as without it, and not a word on the terminal."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

import gradclip

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own


def train(clip, make, compiled, steps=4):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = make(model.parameters())
    handle = gradclip.attach(optimizer, clip[1], parameters=model) if clip[0] == "attach" else None
    clipper = gradclip.Clipper(model, clip[1]) if clip[0] == "Clipper" else None

    def act():
        if clip[0] == "clip_":
            gradclip.clip_(model, clip[1])
        elif clipper is not None:
            clipper.clip_()
        optimizer.step()

    def whole_step(x):
        loss = (1000 * model(x)).sum()
        loss.backward()
        act()

    if compiled == "clip and step":
        act = torch.compile(act, backend="aot_eager")
    elif compiled == "forward":
        model.compile(backend="aot_eager")
    elif compiled == "whole step":
        whole_step = torch.compile(whole_step, backend="aot_eager")
    for step in range(steps):
        optimizer.zero_grad()
        whole_step(torch.ones(8, 4) * (step + 1))
    found = handle.clipper if handle is not None else clipper
    assert found is None or found.step == steps
    return torch.cat([p.detach().flatten() for p in model.parameters()])


CLIPS = [("clip_", "global_norm:1.0"), ("clip_", "agc:0.01"), ("Clipper", "adagc")]
CLIPS += [("attach", recipe) for recipe in ("global_norm:1.0", "tensor_norm:1.0", "auto", "stable_spam")]
MAKE = {"sgd": lambda p: torch.optim.SGD(p, lr=0.1), "adam": lambda p: torch.optim.Adam(p, lr=0.01)}


@pytest.mark.parametrize("clip", CLIPS, ids=" ".join)
@pytest.mark.parametrize(
    ("compiled", "optimizer"), [("clip and step", "sgd"), ("clip and step", "adam"), ("whole step", "sgd")]
)
def test_compiled_as_not(clip, compiled, optimizer):
    eager = train(clip, MAKE[optimizer], None)
    torch.testing.assert_close(train(clip, MAKE[optimizer], compiled), eager, rtol=1e-5, atol=1e-6)


def test_a_compiled_model():
    clip = ("attach", "global_norm:1.0")
    torch.testing.assert_close(train(clip, MAKE["sgd"], "forward"), train(clip, MAKE["sgd"], None), rtol=1e-5, atol=1e-6)


def test_nothing_is_printed():
    """In a process of its own, whose terminal has what warnings and the compiler's log say; PyTorch's own line is left out."""
    script = """
        import torch
        from torch import nn
        import gradclip
        model = nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        gradclip.attach(optimizer, "adagc", parameters=model)

        @torch.compile(backend="aot_eager")
        def act():
            gradclip.clip_(model, "global_norm:5.0")
            optimizer.step()

        for step in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 4)).sum().backward()
            act()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "Profiler record function" not in line]
    assert said == []


def test_a_graph_that_must_be_whole_says_why_it_is_not():
    model = nn.Linear(4, 1)
    model.weight.grad = torch.ones(1, 4)
    with pytest.raises(Exception, match="clip_"):
        torch.compile(lambda: gradclip.clip_(model, "global_norm:1.0"), backend="aot_eager", fullgraph=True)()
