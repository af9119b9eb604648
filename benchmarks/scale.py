"""What clipping a sharded model costs in communication, from 8 to 16,384 ranks: measured here where it can be, modelled beyond.

``python -m benchmarks.scale`` measures (gloo, on this machine) and prints; ``--docs`` writes docs/scale.md. The model's
constants are those by which NCCL itself predicts a tree all-reduce of small messages (its src/graph/tuning.cc).
"""

from __future__ import annotations

import argparse
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

import gradclip.torch as drop_in
from benchmarks.tables import PAGE, put_into_page

RANKS = (8, 64, 512, 4096, 16384)
GPUS_A_NODE = 8
BASE, NVLINK, NETWORK = 6.8e-6, 0.6e-6, 5.0e-6
"""Seconds: of any collective, of a hop over NVLink, of one over InfiniBand; NCCL 2.2x, tree, LL protocol."""
NETWORK_BYTES = 50e9
"""Bytes a second of one NDR InfiniBand port (400 Gb/s)."""
COUNTS = (16, 256)


@dataclass(frozen=True)
class Model:
    """A model, by what its norms need."""

    name: str
    tensors: int
    rows: int
    """Output units, of which ``agc`` has a norm each."""


MODELS = (
    Model("dense, 7B", 291, 32 * (4 * 4096 + 2 * 11008 + 4096 + 2) + 2 * 32000 + 1),
    Model("dense, 70B", 723, 80 * (2 * 8192 + 2 * 1024 + 2 * 28672 + 8192 + 2) + 2 * 32000 + 1),
    Model("MoE, 10,000 tensors", 10_000, 10_000 * 2048),
)


@dataclass(frozen=True)
class Measured:
    """What was measured on this machine with gloo."""

    ranks: int
    latency: float
    bandwidth: float
    collectives: dict[str, dict[int, int]]
    seconds: dict[str, dict[int, float]]


def reduce_time(ranks: int, size: float) -> float:
    """Predict an all-reduce of ``size`` bytes, as NCCL's tuner does for a tree."""
    nodes = max(1, ranks // GPUS_A_NODE)
    hops = (min(ranks, GPUS_A_NODE) - 1) * NVLINK + math.log2(nodes) * NETWORK
    return BASE + 2 * hops + 2 * size / NETWORK_BYTES


def clippers() -> dict[str, Callable[[list[nn.Parameter]], Any]]:
    """The functions that are compared."""
    return {
        "torch": lambda parameters: torch.nn.utils.clip_grad_norm_(parameters, 1.0).full_tensor(),  # type: ignore[operator]
        "gradclip": lambda parameters: drop_in.clip_grad_norm_(parameters, 1.0),
    }


@contextmanager
def counted() -> Iterator[list[int]]:
    """Count the collectives that are started, by torch.distributed and by DTensor's functional ones."""
    from torch.distributed.tensor.debug import CommDebugMode

    found, original = [0], dist.all_reduce

    def all_reduce(*args: Any, **kwargs: Any) -> Any:
        found[0] += 1
        return original(*args, **kwargs)

    dist.all_reduce = all_reduce
    try:
        with CommDebugMode() as mode:
            yield found
        found[0] = max(found[0], mode.get_total_counts())
    finally:
        dist.all_reduce = original


def _rank(rank: int, world: int, port: int, queue: Any) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.set_num_threads(1)
    mesh = init_device_mesh("cpu", (world,))
    latency = _time(lambda: dist.all_reduce(torch.zeros(1)), 300)
    large = torch.zeros(1 << 22)
    bandwidth = 4 * large.numel() / _time(lambda: dist.all_reduce(large), 10)
    collectives: dict[str, dict[int, int]] = {name: {} for name in clippers()}
    seconds: dict[str, dict[int, float]] = {name: {} for name in clippers()}
    for count in COUNTS:
        parameters = [nn.Parameter(distribute_tensor(torch.ones(64, 64), mesh, [Shard(0)])) for _ in range(count)]
        for p in parameters:
            p.grad = torch.ones_like(p)
        for name, clip in clippers().items():
            clip(parameters)
            with counted() as found:
                clip(parameters)
            collectives[name][count] = found[0]
        times: dict[str, list[float]] = {name: [] for name in clippers()}
        for _ in range(9):  # by turns, so that what else runs hits all alike
            for name, clip in clippers().items():
                times[name].append(_time(lambda clip=clip, own=parameters: clip(own), 2))
        for name, own in times.items():
            seconds[name][count] = median(own)
    if rank == 0:
        queue.put(Measured(world, latency, bandwidth, collectives, seconds))
    dist.barrier()
    dist.destroy_process_group()


def _time(work: Callable[[], object], times: int) -> float:
    dist.barrier()
    begin = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - begin) / times


def measure(world: int) -> Measured:
    """Measure with so many processes of this machine."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    queue = mp.get_context("spawn").SimpleQueue()
    processes = mp.spawn(_rank, (world, port, queue), nprocs=world, join=False)
    measured: Measured = queue.get()
    processes.join()
    return measured


def measured_table(each: list[Measured]) -> str:
    """Tabulate what was measured."""
    lines = ["| processes | tensors | collectives, torch | collectives, gradclip | time of gradclip / time of torch |",
             "| ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for m in each:
        for count in COUNTS:
            ratio = m.seconds["gradclip"][count] / m.seconds["torch"][count]
            counts = (m.collectives[name][count] for name in ("torch", "gradclip"))
            lines.append(f"| {m.ranks} | {count} | {next(counts)} | {next(counts)} | {ratio:.2f} |")
    return "\n".join(lines)


def modelled_table() -> str:
    """Tabulate what the model says, in milliseconds a step."""
    lines = [
        "| model | ranks | global norm, bytes | global norm, ms | every row's norm (`agc`), MB | `agc`, ms "
        "| a reduce for each tensor, ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for model in MODELS:
        for ranks in RANKS:
            packed, rows = 8 * model.tensors, 16 * model.rows
            single = model.tensors * reduce_time(ranks, 8)
            lines.append(
                f"| {model.name} | {ranks:,} | {packed:,} | {1e3 * reduce_time(ranks, packed):.3f} | {rows / 1e6:.1f} | "
                f"{1e3 * reduce_time(ranks, rows):.2f} | {1e3 * single:.1f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure, model, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/scale.md")
    arguments = parser.parse_args()
    each = [measure(world) for world in (2, 4)]
    constants = "\n".join(
        f"- {m.ranks} processes: {1e6 * m.latency:.0f} us for 8 bytes, {m.bandwidth / 1e9:.2f} GB/s for 16 MB" for m in each
    )
    parts = {"constants": constants, "measured": measured_table(each), "modelled": modelled_table()}
    for name, text in parts.items():
        print(f"\n{name}\n\n{text}")
        if arguments.docs:
            put_into_page(PAGE.with_name("scale.md"), name, text.splitlines())


if __name__ == "__main__":
    main()
