"""Without the kernel, or without PyTorch's description of tensors to it: the same results."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import gradclip
import gradclip.torch as drop_in
from gradclip.backends import cpu
from tests.backends.support import describe
from tests.conformance.test_recipes import DTYPES, RECIPES
from tests.support import TOLERANCE, parameters

ROOT = Path(__file__).resolve().parents[2]


def results(recipe, dtype):
    torch.manual_seed(1)
    target = parameters(dtype)
    found = gradclip.clip_(target, recipe).asdict()
    return {name: p.grad for name, p in target.items() if p.grad is not None}, found


@pytest.mark.skipif(not cpu.enabled(), reason="the kernel was not built, or is switched off")
@pytest.mark.parametrize("attribute", ["_kernel", "_API"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("recipe", [r for r in RECIPES if r != "value:-0.1,0.5" and r != "value:0,0.5"])
def test_every_recipe_does_the_same(monkeypatch, recipe, dtype, attribute):
    grads, found = results(recipe, dtype)
    monkeypatch.setattr(cpu, attribute, None)
    others, other = results(recipe, dtype)
    assert grads.keys() == others.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, others[name], rtol=TOLERANCE[dtype], atol=1e-7)
    assert found["tensor_norms"] == pytest.approx(other["tensor_norms"], rel=3e-7)
    assert (found["clipped"], found["worst"]) == (other["clipped"], other["worst"])


@pytest.mark.skipif(not cpu.enabled(), reason="the kernel was not built, or is switched off")
def test_without_the_description_python_looks_at_the_tensors(monkeypatch):
    odd = [torch.randn(4, 5)[:, 1:], torch.arange(3), torch.randn(3, dtype=torch.complex64), torch.eye(3).to_sparse(),
           torch.randn(3, device="meta"), torch.frombuffer(bytearray(17), dtype=torch.float32, offset=1, count=4)]  # fmt: skip
    plain = [torch.randn(3), None, torch.randn(2, 3, dtype=torch.float64), nn.Parameter(torch.randn(5)), torch.zeros(0)]
    want = describe([*plain, *odd]).norms(2)
    monkeypatch.setattr(cpu, "_API", None)
    table = describe([*plain, *odd])
    assert list(table.left_out) == [5, 6, 7, 8, 9, 10]
    assert table.norms(2) == want


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("with_kernel", [True, False])
def test_the_drop_in_either_way(monkeypatch, dtype, with_kernel):
    if not with_kernel:
        monkeypatch.setattr(cpu, "_kernel", None)
    target = list(parameters(dtype).values())
    grads = [None if p.grad is None else p.grad.double().clone() for p in target]
    norm = torch.linalg.vector_norm(torch.cat([g.flatten() for g in grads if g is not None]))
    assert float(drop_in.clip_grad_norm_(target, 1.0)) == pytest.approx(float(norm), rel=1e-6)
    for parameter, grad in zip(target, grads, strict=True):
        if grad is not None:
            torch.testing.assert_close(parameter.grad.double(), grad / norm, rtol=TOLERANCE[dtype] + 1e-6, atol=1e-12)


def test_the_variable_switches_it_off_and_the_suite_stays_green():
    """The fallback is what everybody without a compiler runs."""
    environment = dict(os.environ, GRADCLIP_KERNEL="0")
    code = "from gradclip.backends import cpu; print(cpu.enabled(), cpu.Cpu.take([]))"
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "None"]
    suite = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "tests/conformance",
        "tests/torch/test_extremes.py",
    ]
    run = subprocess.run(suite, env=environment, capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stdout[-2000:]
