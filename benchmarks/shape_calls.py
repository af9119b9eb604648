"""How many Python functions of the package run when something is clipped, and in how many of its files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

import gradclip

__all__ = ["CASES", "Calls", "calls_of", "two_layers", "warm"]


@dataclass(frozen=True)
class Calls:
    """What ran."""

    calls: int
    """Python calls; each resumption of a generator is one, and until Python 3.12 each comprehension."""
    files: int
    """The files these functions are in."""


def calls_of(function: Callable[[], object], package: Path) -> Calls:
    """Call something and count the calls of functions whose code is in a package, as found by :func:`sys.setprofile`."""
    files: list[str] = []
    prefix = f"{package}/"

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(prefix):
            files.append(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return Calls(len(files), len(set(files)))


def warm(build: Callable[[nn.Module], Callable[[], object]], package: Path) -> Calls:
    """Count in the third call, each with the same gradients."""
    model = two_layers()
    grads = [p.grad.clone() for p in model.parameters()]
    step = build(model)
    for _ in range(3):
        for p, grad in zip(model.parameters(), grads, strict=True):
            p.grad = grad.clone()
        counted = calls_of(step, package)
    return counted


def two_layers(width: int = 8) -> nn.Module:
    """Return a model of four tensors whose gradients are long enough to be clipped to 1."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, width), nn.Linear(width, width))
    (100 * model(torch.randn(4, width)).square().sum()).backward()
    return model


def _attached(
    recipe: Any, optimizer: type[torch.optim.Optimizer], **settings: Any
) -> Callable[[nn.Module], Callable[[], object]]:
    def build(model: nn.Module) -> Callable[[], object]:
        made = optimizer(model.parameters(), lr=1e-3, **settings)
        gradclip.attach(made, recipe)
        return made.step

    return build


RECIPE = gradclip.global_norm(1.0)
CASES: dict[str, tuple[Callable[[nn.Module], Callable[[], object]], int, int | None]] = {
    "clip_(model, recipe)": (lambda model: lambda: gradclip.clip_(model, RECIPE), 35, 9),
    "Clipper.clip_()": (lambda model: gradclip.Clipper(model, RECIPE).clip_, 25, 8),
    "attach, fused AdamW, step()": (_attached(RECIPE, torch.optim.AdamW, fused=True), 30, 9),
    'attach "adagc", SGD, step()': (_attached("adagc", torch.optim.SGD), 45, None),
    'attach "auto", SGD, step()': (_attached("auto", torch.optim.SGD), 90, None),
}
"""What is called, and the most calls and files that it should take."""
