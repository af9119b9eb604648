"""The cases of ``speed.py``: gradients, who clips them, what is compared with what, and what the result should be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import gradclip
import gradclip.torch as drop_in
from gradclip import Clipping
from tests import reference

__all__ = ["CASES", "Case"]

OURS = ("drop-in", "clip_", "Clipper", "attach", "clip and record")
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-2}


@dataclass
class Case:
    """Contenders that do the same to the same gradients; each returns the norm it found, or None."""

    name: str
    contenders: dict[str, Callable[[], Any]]
    read: Callable[[], object]
    check: Callable[[str], float | None]
    targets: dict[str, float]
    before: Callable[[], None] = lambda: None
    bare: str = ""
    less_bare: Sequence[str] = ()
    """Contenders whose time is taken less that of ``bare``: what clipping adds to an optimizer's step."""
    repeats: int = 1

    @property
    def first(self) -> str:
        """The contender that the others are compared with."""
        return next(iter(self.contenders))

    @property
    def rivals(self) -> list[str]:
        """Whose quickest one a target is a ratio to."""
        return [label for label in self.contenders if label not in (*OURS, "bare step")]


class Work:
    """Parameters with gradients that can be put back, in one stretch of memory to be read."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], dtype: torch.dtype = torch.float32) -> None:
        sizes = [math.prod(shape) for shape in shapes]
        self.flat = torch.randn(sum(sizes)).mul_(0.01).to(dtype)
        self.source = self.flat.clone()
        self.parameters = [nn.Parameter(torch.randn(shape).mul_(0.02).to(dtype)) for shape in shapes]
        for parameter, grad in zip(self.parameters, self.flat.split(sizes), strict=True):
            parameter.grad = grad.view(parameter.shape)
        self.norm = math.sqrt(sum(float(part.double().square().sum()) for part in self.flat.split(1 << 24)))
        self.limit = math.inf

    @property
    def grads(self) -> list[Tensor]:
        """The gradients."""
        return [p.grad for p in self.parameters if p.grad is not None]

    def put_back(self) -> None:
        """Undo what clipping did."""
        self.flat.copy_(self.source)

    def lower(self) -> None:
        """Clip a little more than the time before."""
        self.limit *= 0.99

    def check(self, contenders: dict[str, Callable[[], Any]], clipping: bool, label: str) -> float | None:
        """Compare what a contender does with float64, and return the relative error of its norm."""
        self.put_back()
        self.limit = self.norm / 2 if clipping else 1e9
        found = contenders[label]()
        for now, was in zip(self.flat.split(1 << 24), self.source.split(1 << 24), strict=True):
            want = was.double() * (0.5 if clipping else 1.0)
            loose = 5000 if label == "torch" else 1  # its own norm of 500 MB is 2e-3 off
            close = (now.double() - want).abs_() <= want.abs().mul_(loose * TOLERANCE[self.flat.dtype]).add_(1e-12)
            if not bool(close.all()):
                raise AssertionError(f"{label}: {int((~close).sum())} elements differ from float64")
        error = None if found is None else abs(float(found) / self.norm - 1)
        if error is not None and label != "torch" and error > 1e-6:
            raise AssertionError(f"{label}: the norm is {error:.1e} off")
        return error


def gpt2(layers: int = 12, width: int = 768, words: int = 50257) -> list[tuple[int, ...]]:
    """The shapes of GPT-2's parameters; of the small one, 148 tensors and 124 million elements, by default."""
    block: list[tuple[int, ...]] = [
        (width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,),
        (width,), (width,), (4 * width, width), (4 * width,), (width, 4 * width), (width,),
    ]  # fmt: skip
    return [(words, width), (1024, width), *(layers * block), (width,), (width,)]


def whole(
    shapes: Callable[[bool], Sequence[tuple[int, ...]]],
    dtype: torch.dtype,
    clipping: bool,
    target: float,
    name: str,
    quick: bool,
) -> Case:
    """One norm over everything; where it clips, it clips a little more each time."""
    work = Work(shapes(quick), dtype)
    clipper = gradclip.Clipper(work.parameters, gradclip.global_norm(lambda step: work.limit))
    contenders: dict[str, Callable[[], Any]] = {
        "torch": lambda: nn.utils.clip_grad_norm_(work.parameters, work.limit),
        "drop-in": lambda: drop_in.clip_grad_norm_(work.parameters, work.limit),
        "Clipper": lambda: clipper.clip_().norm,
    }
    before = work.lower if clipping else (lambda: None)
    return Case(
        name, contenders, work.flat.sum, partial(work.check, contenders, clipping), {"drop-in": target}, before,
        repeats=1 if work.flat.numel() > 1 << 22 else 5,
    )  # fmt: skip


def recorded(name: str, quick: bool) -> Case:
    """The drop-in's work with the norm of every tensor returned and kept, against torch's clipping alone."""
    work = Work(gpt2(2 if quick else 12))
    clipper = gradclip.Clipper(work.parameters, gradclip.global_norm(lambda step: work.limit))
    kept: list[list[float]] = []

    def clip_and_record() -> Tensor:
        result = clipper.clip_()
        kept.append(result.tensor_norms.tolist())
        return result.norm

    contenders: dict[str, Callable[[], Any]] = {
        "torch": lambda: nn.utils.clip_grad_norm_(work.parameters, work.limit),
        "clip and record": clip_and_record,
    }
    check = partial(work.check, contenders, True)
    return Case(name, contenders, work.flat.sum, check, {"clip and record": 1.0}, work.lower)


def lstm(name: str, quick: bool) -> Case:
    """Six small tensors: what is done for each call and each tensor is all there is."""
    model = nn.ModuleList([nn.LSTM(64, 64), nn.Linear(64, 64)])
    work = Work([tuple(p.shape) for p in model.parameters()])
    for parameter, grad in zip(model.parameters(), work.grads, strict=True):
        parameter.grad = grad
    recipe, bare, clipping = gradclip.global_norm(1e9), *(torch.optim.SGD(model.parameters(), lr=0.0) for _ in range(2))
    clipper, handle = gradclip.Clipper(model, recipe), gradclip.attach(clipping, recipe)
    contenders: dict[str, Callable[[], Any]] = {
        "torch": lambda: nn.utils.clip_grad_norm_(model.parameters(), 1e9),
        "drop-in": lambda: drop_in.clip_grad_norm_(model.parameters(), 1e9),
        "clip_": lambda: gradclip.clip_(model, recipe).norm,
        "Clipper": lambda: clipper.clip_().norm,
        "bare step": bare.step,
        "attach": clipping.step,
    }

    def check(label: str) -> float | None:
        error = work.check(contenders, False, label)
        return error if label != "attach" or handle.result is None else abs(float(handle.result.norm) / work.norm - 1)

    targets = {"drop-in": 0.3, "clip_": 0.6, "attach": 0.8}
    return Case(
        name, contenders, work.flat.sum, check, targets, bare="bare step", less_bare=("attach",), repeats=20 if quick else 100
    )


def adamw(name: str, quick: bool) -> Case:
    """Clip and step, always clipping; each contender has weights and moments of its own, from the same start."""
    shapes = [(4_000_000,)] * (2 if quick else 12)
    works = {}
    for label in ("torch", "attach", "bare step"):
        torch.manual_seed(0)
        works[label] = Work(shapes)
    optimizers = {label: torch.optim.AdamW(w.parameters, lr=1e-3, fused=True) for label, w in works.items()}
    handle = gradclip.attach(optimizers["attach"], gradclip.global_norm(lambda step: works["attach"].limit))

    def torch_step() -> Tensor:
        norm = nn.utils.clip_grad_norm_(works["torch"].parameters, works["torch"].limit)
        optimizers["torch"].step()
        return norm

    contenders = {"torch": torch_step, "attach": optimizers["attach"].step, "bare step": optimizers["bare step"].step}

    def check(label: str) -> float | None:
        work = works[label]
        work.limit = work.norm / 2
        contenders[label]()
        if label != "attach":
            return None
        for ours, theirs in zip(work.parameters, works["torch"].parameters, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
        assert handle.result is not None
        return abs(float(handle.result.norm) / work.norm - 1)

    def before() -> None:
        for work in works.values():
            work.lower()

    return Case(name, contenders, works["torch"].flat.sum, check, {"attach": 0.92}, before)


def other(clipping: Clipping, others: Callable[[Work], dict[str, Callable[[], Any]]], name: str, quick: bool) -> Case:
    """Another scope, against those who have it; the gradients are put back before each call."""
    work = Work(gpt2(1 if quick else 4, words=2048))
    clipper = gradclip.Clipper(work.parameters, clipping)
    contenders = {**others(work), "Clipper": lambda: clipper.clip_().norm}

    def check(label: str) -> float | None:
        work.put_back()
        if label != "Clipper":
            contenders[label]()
            return None
        norm, want = expected(clipping, work)
        error = abs(float(contenders[label]()) / norm - 1)
        for got, grad in zip(work.grads, want, strict=True):
            np.testing.assert_allclose(got, grad, rtol=1e-6, atol=1e-12)
        return error

    ahead = {label: 1.0 for label in ("drop-in", "Clipper") if label in contenders}
    return Case(name, contenders, work.flat.sum, check, ahead, work.put_back)


def expected(clipping: Clipping, work: Work) -> tuple[float, list[Any]]:
    """What the reference says; it goes element by element for values, which float64 says at once."""
    grads = [g.numpy().astype(np.float64) for g in work.grads]
    if isinstance(clipping.threshold, gradclip.Bounds):
        clipped = [g.clip(clipping.threshold.low, clipping.threshold.high) for g in grads]
        return max(float(abs(g).max()) for g in grads), clipped
    want = reference.clip(clipping, grads, [p.detach().numpy() for p in work.parameters])
    return want.norm, want.grads


def with_optax(transform: Callable[[Any], Any], work: Work) -> Callable[[], Any]:
    """An optax transformation of the same gradients, compiled; it returns new ones."""
    import jax

    grads = [jax.numpy.asarray(g.numpy().copy()) for g in work.grads]
    weights = [jax.numpy.asarray(p.detach().numpy().copy()) for p in work.parameters]
    import optax

    made = transform(optax)
    update = jax.jit(lambda g, w: made.update(g, made.init(w), w)[0])
    return lambda: jax.block_until_ready(update(grads, weights))


def tensor_rivals(work: Work) -> dict[str, Callable[[], Any]]:
    """One norm for each tensor."""
    return {
        "torch, one by one": lambda: [nn.utils.clip_grad_norm_([p], 0.5) for p in work.parameters],
    }


def rms_rivals(work: Work) -> dict[str, Callable[[], Any]]:
    """One root mean square for each tensor."""
    return {"optax, jit": with_optax(lambda optax: optax.clip_by_block_rms(0.005), work)}


def unit_rivals(work: Work) -> dict[str, Callable[[], Any]]:
    """One norm for each output unit, relative to its weights."""
    from pytorch_optimizer.optimizer.agc import agc

    @torch.no_grad()
    def theirs() -> None:
        for p in work.parameters:
            if p.grad is not None:
                p.grad.copy_(agc(p, p.grad, 1e-3, 0.01))

    return {
        "pytorch_optimizer": theirs,
        "optax, jit": with_optax(lambda optax: optax.adaptive_grad_clip(0.01), work),
    }


def value_rivals(work: Work) -> dict[str, Callable[[], Any]]:
    """Each element."""
    return {
        "torch": lambda: nn.utils.clip_grad_value_(work.parameters, 0.02),
        "drop-in": lambda: drop_in.clip_grad_value_(work.parameters, 0.02),
        "optax, jit": with_optax(lambda optax: optax.clip(0.02), work),
    }


def _model(quick: bool) -> Sequence[tuple[int, ...]]:
    return gpt2(2 if quick else 12)


CASES: dict[str, Callable[[str, bool], Case]] = {
    "GPT-2 small, float32, nothing to clip": partial(whole, _model, torch.float32, False, 0.38),
    "GPT-2 small, float32, clipping": partial(whole, _model, torch.float32, True, 0.75),
    "GPT-2 small, bfloat16, nothing to clip": partial(whole, _model, torch.bfloat16, False, 0.34),
    "GPT-2 small, bfloat16, clipping": partial(whole, _model, torch.bfloat16, True, 0.65),
    "1,000 tensors of 1,000": partial(whole, lambda quick: [(1000,)] * 1000, torch.float32, False, 0.12),
    "1,000 tensors of 100": partial(whole, lambda quick: [(100,)] * 1000, torch.float32, False, 0.15),
    "10,000 tensors of 100": partial(whole, lambda quick: [(100,)] * 10000, torch.float32, False, 0.15),
    "LSTM, 6 tensors": lstm,
    "AdamW fused, 48M, always clipping": adamw,
    "GPT-2 small, norms of all tensors recorded": recorded,
    "per tensor": partial(other, gradclip.tensor_norm(0.5), tensor_rivals),
    "per tensor, RMS": partial(other, gradclip.block_rms(0.005), rms_rivals),
    "per unit (AGC)": partial(other, gradclip.agc(0.01), unit_rivals),
    "value": partial(other, gradclip.value(0.02), value_rivals),
}
