"""Models as people shard them: DDP, FSDP2, HSDP, tensor and sequence parallelism, experts; each against one process."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

import gradclip
import gradclip.torch as drop_in
from tests.distributed.support import alike, full

RECIPES = ["global_norm:0.1", "agc:0.001", "tensor_norm:0.05,norm=inf", "value:0.01", "zclip:0.5,warmup=2"]


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width + 1, bias=False)
        self.down = nn.Linear(2 * width + 1, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.tanh(self.up(self.norm(x))))


class Model(nn.Module):
    """Widths that no number of ranks divides, unless they have to."""

    def __init__(self, width: int = 5, blocks: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.head = nn.Linear(width, 3)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Even(Model):
    """For tensor parallelism, which shares out evenly."""

    def __init__(self) -> None:
        super().__init__(8, 1)
        self.blocks[0].up = nn.Linear(8, 16, bias=False)
        self.blocks[0].down = nn.Linear(16, 8)
        del self.unused


def _batch(width: int, step: int, sequence: bool = False) -> Tensor:
    made = torch.Generator().manual_seed(step)
    return torch.randn((4, 8, width) if sequence else (8, width), generator=made) * (1 + step)


def _train(recipe: str, one: nn.Module, many: nn.Module, width: int, share: bool = True, sequence: bool = False) -> list[float]:
    """Take steps with both, each rank with its share of the batch, and compare norms and weights."""
    recipe_of = [(m, torch.optim.SGD(m.parameters(), lr=0.1, foreach=False)) for m in (one, many)]
    handles = [gradclip.attach(optimizer, recipe, parameters=m) for m, optimizer in recipe_of]
    norms = []
    for step in range(4):
        batch = _batch(width, step, sequence)
        for (model, optimizer), is_one in zip(recipe_of, (True, False), strict=True):
            own = batch if is_one or not share else batch.chunk(dist.get_world_size())[dist.get_rank()]
            optimizer.zero_grad()
            model(own).pow(2).mean().backward()
            optimizer.step()
        want, have = (handle.result for handle in handles)
        torch.testing.assert_close(have.norm, want.norm, rtol=1e-5, atol=0)
        torch.testing.assert_close(have.tensor_norms, want.tensor_norms, rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(have.clipped_tensor_norms, want.clipped_tensor_norms, rtol=1e-5, atol=1e-9)
        norms.append(have.asdict())
        del norms[-1]["tensor_norms"]
    for (name, p), q in zip(one.named_parameters(), many.parameters(), strict=True):
        torch.testing.assert_close(full(q.detach()), p.detach(), rtol=1e-5, atol=1e-6, msg=name)
    return norms


def _both(made: type[nn.Module]) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(1)
    model = made()
    return model, copy.deepcopy(model)


def _ddp(recipe: str) -> list[float]:
    one, many = _both(Model)
    wrapped = DistributedDataParallel(many, find_unused_parameters=True)
    return _train(recipe, one, wrapped, 5)


def _fsdp(recipe: str, shape: tuple[int, ...], offload: bool = False) -> list[float]:
    one, many = _both(Model)
    names = ("replicate", "shard")[-len(shape) :]
    options = {"mesh": init_device_mesh("cpu", shape, mesh_dim_names=names)}
    if offload:
        options["offload_policy"] = CPUOffloadPolicy(pin_memory=False)
    for block in many.blocks:
        fully_shard(block, **options)
    fully_shard(many, **options)
    return _train(recipe, one, many, 5)


def _parallelize(block: Block, mesh: DeviceMesh, sequence: bool) -> None:
    if not sequence:
        parallelize_module(block, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
        return
    parallelize_module(block, mesh, {"norm": PrepareModuleInput(input_layouts=Replicate(), desired_input_layouts=Shard(1))})
    plan = {
        "norm": SequenceParallel(),
        "up": ColwiseParallel(input_layouts=Shard(1)),
        "down": RowwiseParallel(output_layouts=Replicate()),
    }
    parallelize_module(block, mesh, plan)


def _tp(recipe: str, shape: tuple[int, ...], sequence: bool = False) -> list[float]:
    one, many = _both(Even)
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("dp", "tp")[-len(shape) :])
    _parallelize(many.blocks[0], mesh["tp"], sequence)
    if len(shape) == 2:
        fully_shard(many.blocks[0], mesh=mesh["dp"])
        fully_shard(many, mesh=mesh["dp"])
        rows = mesh.get_local_rank("dp")
        whole = many.forward
        many.forward = lambda x: whole(x.chunk(shape[0])[rows])  # type: ignore[method-assign]
    return _train(recipe, one, many, 8, share=False, sequence=sequence)


@pytest.mark.parametrize("recipe", RECIPES)
def test_ddp(ranks, recipe):
    alike(ranks(2, _ddp, recipe))


@pytest.mark.parametrize("recipe", RECIPES)
def test_fsdp(ranks, recipe):
    alike(ranks(4, _fsdp, recipe, (4,)))


@pytest.mark.parametrize("recipe", RECIPES)
def test_hsdp(ranks, recipe):
    alike(ranks(4, _fsdp, recipe, (2, 2)))


@pytest.mark.parametrize("recipe", ["global_norm:0.1", "agc:0.001"])
def test_offloaded_gradients(ranks, recipe):
    alike(ranks(2, _fsdp, recipe, (2,), True))


@pytest.mark.parametrize("recipe", RECIPES)
def test_tensor_parallel_beside_plain(ranks, recipe):
    alike(ranks(2, _tp, recipe, (2,)))


@pytest.mark.parametrize("recipe", RECIPES)
def test_fsdp_over_tensor_parallel(ranks, recipe):
    alike(ranks(4, _tp, recipe, (2, 2)))


@pytest.mark.parametrize("recipe", ["global_norm:0.1", "agc:0.001"])
def test_sequence_parallel(ranks, recipe):
    alike(ranks(2, _tp, recipe, (2,), True))


def _summands() -> list[bool]:
    """What sequence parallelism leaves of a replicated parameter's gradient."""
    _, many = _both(Even)
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("tp",))
    _parallelize(many.blocks[0], mesh, True)
    many(_batch(8, 0, True)).pow(2).mean().backward()
    norm = many.blocks[0].norm
    before = [p.grad.placements[0].is_partial() for p in norm.parameters()]
    gradclip.clip_(many, "global_norm:0.1")
    return before + [p.grad.placements[0].is_replicate() for p in norm.parameters()]


def test_gradients_of_sequence_parallel_norms_are_summands_first(ranks):
    assert alike(ranks(2, _summands)) == [True] * 4


def _mixed_precision() -> float:
    """Gradients are reduced in float32, in which the parameters are too."""
    _, many = _both(Model)
    fully_shard(many, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32))
    many(_batch(5, 0)).float().pow(2).mean().backward()
    whole = [p.grad.full_tensor() for p in many.parameters() if p.grad is not None]
    want = torch.nn.utils.get_total_norm(whole)
    have = drop_in.clip_grad_norm_(many.parameters(), 0.1)
    torch.testing.assert_close(have, want, rtol=1e-6, atol=0)
    return float(have)


def test_mixed_precision(ranks):
    alike(ranks(2, _mixed_precision))


def _as_torch_does(p: float) -> float:
    """On one mesh PyTorch's own function is right, and ours is a plain number."""
    norms = []
    for clip in (torch.nn.utils.clip_grad_norm_, drop_in.clip_grad_norm_):
        _, many = _both(Model)
        fully_shard(many)
        many(_batch(5, 0)).pow(2).mean().backward()
        total = clip(many.parameters(), 0.1, p)
        norms.append((total.full_tensor() if isinstance(total, DTensor) else total, [full(q.grad) for q in many.parameters()]))
    (want, wanted), (have, had) = norms
    torch.testing.assert_close(have, want, rtol=1e-6, atol=0)
    for a, b in zip(wanted, had, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-9)
    return float(have)


@pytest.mark.parametrize("p", [1.0, 2.0, float("inf")])
def test_as_torch_does_on_one_mesh(ranks, p):
    alike(ranks(2, _as_torch_does, p))
