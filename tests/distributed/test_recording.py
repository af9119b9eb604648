"""``gradclip.record`` on every rank: one run, with the norms of whole tensors, and no collective more."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from gradclip.runs import Run
from gradclip.watch.api import record

STEPS = 12
"""More than the steps between two looks at the weights."""


class Collectives(TorchDispatchMode):
    """Counts what is communicated, by the functions that do it."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(one is DTensor for one in types):
            return NotImplemented  # its own operations are seen one by one
        if function.namespace in ("c10d", "_c10d_functional"):
            self.counts[str(function)] += 1
        return function(*args, **(kwargs or {}))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))


def batches():
    generator = torch.Generator().manual_seed(1)
    return [10 * torch.randn(8, 7, generator=generator) for _ in range(STEPS)]


def clip(model):
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)


def train(model, folder=None, rows=slice(None), clip=clip):
    """An ordinary loop, with clipping."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    recording = None if folder is None else record(model, optimizer, out=folder)
    for batch in batches():
        optimizer.zero_grad()
        model(batch[rows]).square().mean().backward()
        clip(model)
        optimizer.step()
    if recording is not None:
        recording.close()


def sharded(shape, folder, watched):
    """Train a model on a mesh, sharded along its last dimension, replicated along the one before; count the collectives."""
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicas", "shards")[-len(shape) :])
    model = fully_shard(net(), mesh=mesh)
    count = 8 // dist.get_world_size()
    with Collectives() as collectives:
        train(model, folder if watched else None, slice(count * dist.get_rank(), count * (dist.get_rank() + 1)))
    return dict(collectives.counts)


def of_one_process(folder):
    """The same training in one process, with the whole batch."""
    train(net(), folder)
    (path,) = Path(folder).glob("*.gradclip")
    return path


def test_shards_and_replicas_are_those_of_one_process(ranks, tmp_path):
    with Run.open(of_one_process(tmp_path / "one")) as run:
        wanted = {kind: run.tensor_matrix(kind).matrix for kind in run.kinds()}
        steps = run.steps()
        names = [(tensor.name, tensor.shape) for tensor in run.tensors]
    for shape in ((2,), (2, 2)):
        folder = tmp_path / str(len(shape))
        size = int(np.prod(shape))
        counts = ranks(size, sharded, shape, str(folder), True)
        assert counts == ranks(size, sharded, shape, str(folder), False)
        assert any(counts[0].values())
        (path,) = folder.glob("*.gradclip")
        assert len(list(folder.glob("ranks/*/*.gradclip"))) == size - 1
        with Run.open(path) as run:
            assert run.ranks.size == size
            assert run.ranks.problems == run.ranks.disagreements == ()
            assert [(tensor.name, tensor.shape) for tensor in run.tensors] == names
            assert set(run.kinds()) == set(wanted)
            for kind, matrix in wanted.items():
                np.testing.assert_allclose(run.tensor_matrix(kind).matrix, matrix, rtol=1e-3, atol=1e-6)
            for name in ("norm", "clipped_norm", "coefficient", "weight_norm"):
                np.testing.assert_allclose(getattr(run.steps(), name), getattr(steps, name), rtol=1e-3)
            assert run.steps().clipped.tolist() == steps.clipped.tolist()
        with Run.open(path, alone=True) as rank:
            assert (rank.steps().norm < 0.999 * steps.norm).all()


def flattened(original, folder):
    model = FullyShardedDataParallel(net(), device_id=torch.device("cpu"), use_orig_params=original)
    rows = slice(4 * dist.get_rank(), 4 * dist.get_rank() + 4)
    train(model, folder, rows, clip=lambda model: model.clip_grad_norm_(0.5))


@pytest.mark.parametrize("original", [True, False], ids=["original parameters", "flat parameters"])
def test_the_norm_of_flat_shards_is_that_of_one_process(original, ranks, tmp_path):
    with Run.open(of_one_process(tmp_path / "one")) as run:
        steps = run.steps()
        by_tensor = run.tensor_matrix("norm").matrix
    ranks(2, flattened, original, str(tmp_path / "two"))
    (path,) = (tmp_path / "two").glob("*.gradclip")
    with Run.open(path) as run:
        for name in ("norm", "clipped_norm", "threshold"):
            np.testing.assert_allclose(getattr(run.steps(), name), getattr(steps, name), rtol=1e-3)
        assert run.steps().clipped.tolist() == steps.clipped.tolist()
        assert run.ranks.problems == ()
        if original:
            np.testing.assert_allclose(run.tensor_matrix("norm").matrix, by_tensor, rtol=1e-3)


def alone(folder):
    """Only the first rank records."""
    if dist.get_rank() == 0:
        return sharded((2,), folder, True)
    return sharded((2,), folder, False)


def test_a_rank_that_does_not_record_is_missed(ranks, tmp_path):
    ranks(2, alone, str(tmp_path))
    (path,) = tmp_path.glob("*.gradclip")
    with Run.open(path) as run:
        assert run.ranks.problems == ("rank 1 of 2 left no run file; gradient norms are not known without it",)
        assert run.steps().missing["norm"].all()
        assert run.status == "incomplete"
    assert os.listdir(tmp_path) == [path.name]
