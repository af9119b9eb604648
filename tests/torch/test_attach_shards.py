"""A gradient that is this rank's part of a larger one, and nobody says how it is cut, is refused before anything is clipped.

PyTorch's own fake process group stands for two ranks in one process.
"""

from __future__ import annotations

import os
import socket
import warnings

import pytest
import torch
from torch import nn

import gradclip

distributed = pytest.importorskip("torch.distributed")
pytestmark = [
    pytest.mark.skipif(not distributed.is_available(), reason="this PyTorch is built without torch.distributed"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning"),  # PyTorch's own
]


@pytest.fixture(params=[1, 2])
def ranks(request):
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=request.param)
    yield request.param
    distributed.destroy_process_group()


def model():
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))


def entrances(net):
    """Every way in."""
    return [
        lambda: gradclip.clip_(net, "global_norm:1.0"),
        lambda: gradclip.clip_(list(net.parameters()), "value:1.0"),
        lambda: gradclip.Clipper(net, "global_norm:1.0"),
        lambda: gradclip.attach(torch.optim.SGD(net.parameters(), lr=0.1), "global_norm:1.0"),
        lambda: gradclip.attach(torch.optim.SGD(net.parameters(), lr=0.1), "global_norm:1.0", parameters=net),
        lambda: gradclip.tensor_norms(net),
        lambda: gradclip.InBackward(net, "tensor_norm:1.0"),
    ]


def assert_refused(net, match):
    grads = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    for enter in entrances(net):
        with pytest.raises(gradclip.TargetError, match=match):
            enter()
    for p, before in zip(net.parameters(), grads, strict=True):
        assert before is None or torch.equal(p.grad, before)


@pytest.mark.parametrize("whole_names", [False, True])
def test_fsdp_shards(ranks, whole_names):
    from torch.distributed.fsdp import FullyShardedDataParallel

    net = FullyShardedDataParallel(model(), device_id=torch.device("cpu"), use_orig_params=whole_names)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    if ranks > 1:
        assert_refused(net, r"is sharded by FullyShardedDataParallel: call model\.clip_grad_norm_\(max_norm\) before step")
    else:  # one rank has it all
        gradclip.clip_(net, "global_norm:1.0")
        assert float(torch.cat([p.grad.flatten() for p in net.parameters()]).norm()) == pytest.approx(1.0)


def test_fsdp_that_keeps_everything_on_every_rank(ranks):
    from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy

    net = FullyShardedDataParallel(model(), device_id=torch.device("cpu"), sharding_strategy=ShardingStrategy.NO_SHARD)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    assert float(gradclip.clip_(net, "global_norm:1.0").norm) == pytest.approx(40**0.5)


def test_shards_are_taken_where_it_is_said_how_they_are_cut(ranks):
    from torch.distributed.fsdp import FullyShardedDataParallel

    net = FullyShardedDataParallel(model(), device_id=torch.device("cpu"))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with gradclip.attach(optimizer, "global_norm:1.0", group=distributed.group.WORLD) as handle:
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
        optimizer.step()
        assert len(handle.clipper.parameters) == 2


def test_dtensors_say_how_they_are_cut_and_their_local_parts_do_not(ranks):
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import init_device_mesh

    net = fully_shard(model(), mesh=init_device_mesh("cpu", (ranks,)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    handle = gradclip.attach(optimizer, "global_norm:1.0")
    with pytest.raises(gradclip.TargetError, match=r"'0' is the local part of a DTensor.*pass the DTensor"):
        gradclip.clip_([p.to_local() for p in net.parameters()], "global_norm:1.0")
    with pytest.warns(RuntimeWarning, match="does not clip, for its tensors are cut over the ranks of this run"):
        state = optimizer.__getstate__()
    assert "_optimizer_step_pre_hooks" not in state
    handle.detach()


def test_a_replicated_optimizer_is_clipped_whole_and_its_inner_part_is_refused(ranks):
    from torch.distributed.optim import ZeroRedundancyOptimizer

    net = model()
    optimizer = ZeroRedundancyOptimizer(net.parameters(), torch.optim.SGD, lr=0.1)
    if ranks > 1:
        with pytest.raises(
            gradclip.TargetError, match=r"inside a ZeroRedundancyOptimizer.*attach to the ZeroRedundancyOptimizer"
        ):
            gradclip.attach(optimizer.optim, "global_norm:1.0")
    handle = gradclip.attach(optimizer, "global_norm:1.0")
    assert len(handle.clipper.parameters) == 4


def test_deepspeeds_partitions():
    net = model()
    for p in net.parameters():
        p.ds_id, p.ds_tensor = 0, torch.zeros(2)
    assert_refused(net, 'is partitioned by DeepSpeed ZeRO: set "gradient_clipping" in its configuration')


def test_other_notes_on_a_parameter_do_no_harm():
    net = model()
    for p in net.parameters():
        p.grad, p.decay = torch.ones_like(p), True
    gradclip.clip_(net, "global_norm:1.0")
    assert float(torch.cat([p.grad.flatten() for p in net.parameters()]).norm()) == pytest.approx(1.0)


def test_lazy_layers_are_told_in_a_sentence_until_they_have_a_shape():
    net = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for enter in (*entrances(net), lambda: gradclip.attach(optimizer, "global_norm:1.0")):
        with pytest.raises(
            gradclip.TargetError, match="lazy layer and has no shape yet: run one batch through the model first"
        ):
            enter()
    net(torch.ones(2, 5)).sum().backward()
    handle = gradclip.attach(optimizer, "global_norm:0.1")
    optimizer.step()
    assert float(handle.result.clipped_norm) == pytest.approx(0.1)


def _train(rank, port, by_hand, ends):
    warnings.simplefilter("ignore")
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    from torch.distributed.optim import ZeroRedundancyOptimizer

    torch.manual_seed(0)
    net = model()
    ddp = nn.parallel.DistributedDataParallel(net)
    optimizer = ZeroRedundancyOptimizer(net.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9)
    if not by_hand:
        gradclip.attach(optimizer, "global_norm:0.5")
    for step in range(4):
        optimizer.zero_grad()
        (10.0**step * ddp(torch.full((2, 4), 1.0 + rank))).sum().backward()
        if by_hand:
            gradclip.clip_(net, "global_norm:0.5")
        optimizer.step()
    ends[rank] = torch.cat([p.detach().flatten() for p in net.parameters()]).tolist()
    distributed.destroy_process_group()


def test_a_replicated_optimizer_on_two_ranks_trains_as_clipped_by_hand():
    from torch import multiprocessing

    manager = multiprocessing.Manager()
    found = []
    for by_hand in (True, False):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        ends = manager.dict()
        multiprocessing.spawn(_train, (port, by_hand, ends), nprocs=2)
        found += [ends[0], ends[1]]
    assert found[0] == found[1] == found[2] == found[3]
