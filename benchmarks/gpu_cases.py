"""The cases of ``gpu.py``: gradients, who clips them, and what the result should be."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Callable, Sequence

import torch
from speed_cases import gpt2
from torch import Tensor, nn

import gradclip
import gradclip.torch as drop_in
from gradclip.backends import gpu

__all__ = ["CASES", "MANY", "WARMUP", "Work", "contenders_of"]

WARMUP = 3
FREE = 1e9
"""A limit that no gradient here reaches."""


class Work:
    """Parameters with gradients that can be put back."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[torch.dtype]) -> None:
        pairs = list(zip(shapes, itertools.cycle(dtypes), strict=False))
        self.parameters = [nn.Parameter(torch.empty(shape, dtype=dtype, device="cuda")) for shape, dtype in pairs]
        for p in self.parameters:
            p.grad = torch.randn(p.shape, device="cuda").mul_(0.01).to(p.dtype)
        self.source = [p.grad.clone() for p in self.parameters]
        self.bytes = sum(g.numel() * g.element_size() for g in self.source)
        self.norm = math.sqrt(
            sum(float(part.double().square().sum()) for g in self.source for part in g.view(-1).split(1 << 26))
        )
        self.limit = self.norm

    def grads(self) -> list[Tensor]:
        """Return the gradients."""
        return [p.grad for p in self.parameters]

    def put_back(self) -> None:
        """Undo what clipping did."""
        torch._foreach_copy_(self.grads(), self.source)

    def lower(self) -> float:
        """Return a limit a little below the last one, so that there is always something to clip."""
        self.limit *= 0.99
        return self.limit

    def check(self, contender: Callable[[], object], label: str) -> None:
        """Compare a contender's norm and gradients with float64."""
        self.put_back()
        self.limit = self.norm
        found = contender()
        factor = 0.99 if ", clipping" in label else 1.0
        if isinstance(found, Tensor):
            error = abs(float(found.double().norm()) / self.norm - 1)
            assert error < (1e-2 if label.startswith("torch") else 1e-6), f"{label}: the norm is {error:.1e} off"
        for now, was in zip(self.grads(), self.source, strict=True):
            loose = 1e-2 if was.dtype == torch.bfloat16 or label.startswith("torch") else 2e-6 + 1e-6 / self.norm
            torch.testing.assert_close(now, (was.double() * factor).to(was.dtype), rtol=loose, atol=1e-12)


def contenders_of(work: Work) -> dict[str, Callable[[], object]]:
    """Everybody who does the same to the same gradients; those named after torch are its own."""
    made: dict[str, Callable[[], object]] = {
        "torch, nothing to clip": lambda: nn.utils.clip_grad_norm_(work.parameters, FREE, foreach=True),
        "torch, clipping": lambda: nn.utils.clip_grad_norm_(work.parameters, work.lower(), foreach=True),
        "measure only": lambda: gpu.Gpu.take(work.grads())[0].norms(2.0),
        "drop-in, nothing to clip": lambda: drop_in.clip_grad_norm_(work.parameters, FREE),
        "drop-in, clipping": lambda: drop_in.clip_grad_norm_(work.parameters, work.lower()),
        "drop-in in a graph, nothing to clip": captured(lambda: drop_in.clip_grad_norm_(work.parameters, FREE)),
    }
    if importlib.util.find_spec("array_api_compat") is None:
        print("Clipper needs the package array_api_compat, which is not installed here: its rows are left out")
        return made
    free = gradclip.Clipper(work.parameters, gradclip.global_norm(FREE, nonfinite="propagate"))
    tight = gradclip.Clipper(work.parameters, gradclip.global_norm(lambda step: work.lower(), nonfinite="propagate"))
    return made | {
        "Clipper, nothing to clip": lambda: free.clip_().norm,
        "Clipper, clipping": lambda: tight.clip_().norm,
    }


def captured(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Capture a call into a graph; what comes back replays it."""
    for _ in range(WARMUP):
        call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call()

    def replay() -> Tensor:
        graph.replay()
        return found

    return replay


def mixed() -> tuple[list[tuple[int, ...]], list[torch.dtype]]:
    """2,000 tensors from 16 to 131,072 elements, in two dtypes."""
    return [(1 << (4 + i % 14),) for i in range(2000)], [torch.float32, torch.bfloat16]


def billion() -> tuple[list[tuple[int, ...]], list[torch.dtype]]:
    """A transformer of 1.1 billion parameters."""
    block: list[tuple[int, ...]] = [*[(2048, 2048)] * 4, *[(5632, 2048)] * 2, (2048, 5632), (2048,), (2048,)]
    return [(32000, 2048), *(20 * block), (2048,), (32000, 2048)], [torch.bfloat16]


MANY = "2,000 mixed tensors"
CASES: dict[str, Callable[[], tuple[list[tuple[int, ...]], list[torch.dtype]]]] = {
    "GPT-2 small, 148 tensors, float32": lambda: (gpt2(), [torch.float32]),
    "GPT-2 small, 148 tensors, bfloat16": lambda: (gpt2(), [torch.bfloat16]),
    MANY: mixed,
    "1.1B parameters, bfloat16": billion,
}
