"""What it saves to step inside backward, and what it costs: the usual loop and ``InBackward`` by turns in one process.

    python benchmarks/in_backward.py                 # benchmarks/results/in_backward.csv
    python benchmarks/in_backward.py --rounds 20

Peak bytes are those of all ``.grad`` together, added up whenever a gradient appears. Times are medians of whole steps
(forward, backward, clipping, stepping), ratios those of the medians; every arm has weights of its own.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

import gradclip

RESULTS = Path(__file__).parent / "results" / "in_backward.csv"
ARMS = ("after backward", "not clipped", "tensor by tensor", "all together, two passes")
"""The first is the usual loop, clipped by its global norm; the others step inside backward."""


class Transformer(nn.Module):
    """A small one: about 13 million parameters in 75 tensors."""

    def __init__(self, width: int = 384, layers: int = 6, words: int = 4096) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(words, width), nn.Linear(width, words)
        block = nn.TransformerEncoderLayer(width, 6, 4 * width, 0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)

    def forward(self, words: Tensor) -> Tensor:
        """Return a loss; which one does not matter here."""
        return self.head(self.blocks(self.embedding(words))).square().mean()


def adamw(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of every arm."""
    return torch.optim.AdamW(parameters, lr=1e-4, fused=True)


def step_of(arm: str, model: nn.Module, words: Tensor) -> Callable[[], None]:
    """Return one training step, set up for an arm."""
    if arm == "after backward":
        optimizer = adamw(list(model.parameters()))
        clipper = gradclip.Clipper(model, "global_norm:1.0")

        def usual() -> None:
            model(words).backward()
            clipper.clip_()
            optimizer.step()
            optimizer.zero_grad()

        return usual
    optimizers = {p: adamw([p]) for p in model.parameters()}
    if arm == "not clipped":
        return not_clipped(model, words, optimizers)
    clipping = "tensor_norm:1.0" if arm == "tensor by tensor" else "global_norm:1.0"
    in_backward = gradclip.InBackward(model, clipping, optimizers)

    def early() -> None:
        loss = model(words)
        if "two passes" in arm:
            with in_backward.measuring():
                loss.backward(retain_graph=True)
        loss.backward()

    return early


def not_clipped(model: nn.Module, words: Tensor, optimizers: dict[nn.Parameter, torch.optim.Optimizer]) -> Callable[[], None]:
    """Return the step that PyTorch's tutorial on this has."""

    def step_one(parameter: nn.Parameter) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in optimizers:
        parameter.register_post_accumulate_grad_hook(step_one)
    return lambda: model(words).backward()


def peak_bytes(arm: str, words: Tensor) -> int:
    """Return the most gradient bytes alive at once during two steps."""
    model = Transformer()
    parameters, peaks = list(model.parameters()), [0]

    def look(_: Tensor) -> None:
        peaks.append(sum(p.grad.nbytes for p in parameters if p.grad is not None))

    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(look)
    step = step_of(arm, model, words)
    step()
    step()
    return max(peaks)


def seconds(words: Tensor, rounds: int) -> dict[str, float]:
    """Return the median seconds of a step of each arm; they take turns in an order that turns."""
    steps = {arm: step_of(arm, Transformer(), words) for arm in ARMS}
    times: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for i in range(rounds + 2):
        for arm in ARMS[i % len(ARMS) :] + ARMS[: i % len(ARMS)]:
            begin = time.perf_counter()
            steps[arm]()
            if i > 1:  # the first ones warm up
                times[arm].append(time.perf_counter() - begin)
    return {arm: median(each) for arm, each in times.items()}


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    words = torch.randint(0, 4096, (2, 64))
    peaks, took = {arm: peak_bytes(arm, words) for arm in ARMS}, seconds(words, options.rounds)
    rows = [
        {
            "arm": arm,
            "peak_gradient_mb": round(peaks[arm] / 1e6, 2),
            "share": round(peaks[arm] / peaks[ARMS[0]], 3),
            "step_ms": round(1e3 * took[arm], 2),
            "time_ratio": round(took[arm] / took[ARMS[0]], 3),
            "threads": options.threads,
            "torch": torch.__version__,
        }
        for arm in ARMS
    ]
    for row in rows:
        print(row, flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
