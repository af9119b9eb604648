"""A method on real parameters beside the reference, step after step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

import gradclip
from gradclip.torch.targets import resolve
from tests import reference
from tests.support import assert_matches, numpy_of

SHAPES = {"encoder.weight": (6, 5), "encoder.bias": (6,), "conv.weight": (4, 3, 2, 2), "gain": (), "empty": (0, 3)}
EXACT = {torch.float64: 1e-11, torch.float32: 1e-6, torch.bfloat16: 1.3e-2}


def made(dtype: torch.dtype) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(torch.randn(shape, dtype=dtype)) for name, shape in SHAPES.items()}


def give_gradients(parameters: dict[str, nn.Parameter], step: int) -> None:
    """Norms that jump about, a spike now and then, a parameter without a gradient in every third step, a step of zeros."""
    size = float(torch.randn(()).mul(0.4).exp()) * (30 if step % 11 == 10 else 1) * (step != 7)
    for i, (name, parameter) in enumerate(parameters.items()):
        there = i != step % 3 or name == "conv.weight"
        parameter.grad = torch.randn_like(parameter.detach()) * size if there else None


class Specification:
    """What the reference says of the next step, given all steps before; the stages of a chain one after another."""

    def __init__(
        self,
        clipping: gradclip.Clipping | gradclip.Chain,
        parameters: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        self.clipping, self.entries = clipping, resolve(parameters, optimizer).entries
        self.weights = [numpy_of(p) for p in parameters.values()]
        self.histories: list[list[list[float]]] = [[] for _ in clipping.stages]

    def step(self, parameters: dict[str, nn.Parameter]) -> reference.Reference:
        grads = [np.zeros(p.shape) if p.grad is None else numpy_of(p.grad) for p in parameters.values()]
        for clipping, history in zip(self.clipping.stages, self.histories, strict=True):
            found = self.stage(clipping, history, grads)
            grads = found.grads
        return found

    def stage(self, clipping: gradclip.Clipping, history: list[list[float]], grads: list[np.ndarray]) -> reference.Reference:
        measured = gradclip.Clipping(clipping.scope, clipping.norm, np.inf)
        history.append(reference.clip(measured, grads, entries=self.entries).block_norms)
        limits = None
        if clipping.threshold.stateful:
            limits = reference.limits(clipping.threshold, np.array(history))[-1]
            limits = list(np.where(np.isnan(limits), np.inf, limits))
        return reference.clip(clipping, grads, self.weights, entries=self.entries, limits=limits, step=len(history) - 1)


def assert_step(parameters: dict[str, nn.Parameter], there: list[str], want: reference.Reference, least: float) -> None:
    """What had a gradient has the specified one; what was dropped has none, where the specification says 0."""
    grads = dict(zip(parameters, want.grads, strict=True))
    kept = [name for name in there if parameters[name].grad is not None]
    assert_matches({name: parameters[name] for name in kept}, replace(want, grads=[grads[name] for name in kept]), least)
    assert not any(grads[name].any() for name in grads if name not in kept)
    assert len(kept) == len(there) or 0.0 in want.factors


def follow(spelling: str, dtype: torch.dtype, *, attached: bool = False, steps: int = 25, least: float = 0.0) -> int:
    """Clip as a method says, its reference beside it; return how many of the steps were clipped.

    Args:
        spelling: the method; it needs no learning rate.
        dtype: of the parameters.
        attached: inside ``optimizer.step()`` instead of through a ``Clipper``; the optimizer has two groups.
        steps: how many steps.
        least: a tolerance of the method's own, besides that of the dtype.
    """
    parameters, clipping = made(dtype), gradclip.parse(spelling)
    pairs = list(parameters.items())
    optimizer = torch.optim.SGD([{"params": pairs[:2]}, {"params": pairs[2:]}], lr=0.0)
    specification = Specification(clipping, parameters, optimizer)
    handle = gradclip.attach(optimizer, clipping, parameters=parameters) if attached else None
    clipper = gradclip.Clipper(parameters, clipping, optimizer=optimizer)
    clipped = 0
    for step in range(steps):
        give_gradients(parameters, step)
        there = [name for name, p in parameters.items() if p.grad is not None]
        want = specification.step(parameters)
        if handle is None:
            result = clipper.clip_()
        else:
            optimizer.step()
            result = handle.result
        assert_step(parameters, there, want, EXACT[dtype] + least)
        clipped += bool(result.clipped)
    return clipped
