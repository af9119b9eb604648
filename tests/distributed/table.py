"""What PyTorch's clipping makes of sharded gradients, and what gradclip makes of them: the table in docs/sharding.md.

``python -m tests.distributed.table`` prints it, ``--write`` brings the page up to date. Each case is a few numbers whose norm
anyone can work out; each function of one returns the norm that a rank has been given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard

import gradclip
import gradclip.torch as drop_in
from tests.distributed.ranks import Outcome, Ranks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sharding.md"
BEGIN, END = "<!-- table: python -m tests.distributed.table --write -->\n", "<!-- /table -->\n"
_LEFT = ("Timed out", "closed by peer", "reset by peer")
"""What a rank says that waits for another, which has done without it and is gone."""


@dataclass(frozen=True)
class Case:
    """One fault: the right norm, and the norm that each rank gets from PyTorch and from gradclip."""

    text: str
    right: float
    torch: Callable[[], float]
    gradclip: Callable[[], float]
    call: str
    """How gradclip is called."""
    ranks: int = 2


def _parameter(grad: list[float]) -> nn.Parameter:
    p = nn.Parameter(torch.zeros(len(grad)))
    p.grad = torch.tensor(grad)
    return p


def _sharded(grad: list[float], mesh: DeviceMesh | None = None) -> nn.Parameter:
    """A DTensor of which each rank has the next numbers."""
    mesh = mesh or init_device_mesh("cpu", (dist.get_world_size(),))
    own = torch.tensor(grad).chunk(mesh.size())[mesh.get_local_rank()]
    p = nn.Parameter(DTensor.from_local(torch.zeros_like(own), mesh, [Shard(0)], run_check=False))
    p.grad = DTensor.from_local(own, mesh, [Shard(0)], run_check=False)
    return p


def _clip_as_torch(*parameters: nn.Parameter, norm: float = 2.0) -> float:
    total = torch.nn.utils.clip_grad_norm_(parameters, 1.0, norm)
    return float(total.to_local() if isinstance(total, DTensor) else total)


def _drop_in(*parameters: nn.Parameter, norm: float = 2.0) -> float:
    return float(drop_in.clip_grad_norm_(parameters, 1.0, norm))


def _clip_group(named: dict[str, nn.Parameter]) -> float:
    return float(gradclip.clip_(named, "global_norm:1.0", group=dist.group.WORLD).norm)


def _by_hand() -> dict[str, nn.Parameter]:
    return {"weight": _parameter([[3.0], [4.0]][dist.get_rank()])}


def _rows() -> nn.Parameter:
    return _sharded([2.0, 2.0, 2.0, 2.0])


def _beside() -> list[nn.Parameter]:
    return [_sharded([3.0, 0.0]), _parameter([4.0, 0.0])]


def _two_meshes() -> list[nn.Parameter]:
    dense = init_device_mesh("cpu", (4,), mesh_dim_names=("dp",))
    experts = init_device_mesh("cpu", (2, 2), mesh_dim_names=("expert_dp", "expert"))["expert"]
    return [_sharded([3.0, 0.0, 0.0, 0.0], dense), _sharded([0.0, 4.0], experts)]


def _plain_experts() -> dict[str, nn.Parameter]:
    rank = dist.get_rank()
    return {"dense": _parameter([1.0]), f"experts.{rank}": _parameter([[2.0], [2.0]][rank])}


def _tied() -> dict[str, nn.Parameter]:
    own = [{"embedding": [20.0]}, {"embedding": [20.0], "head": [20.0]}][dist.get_rank()]
    return {name: _parameter(grad) for name, grad in own.items()}


def _summed_by_hand(named: dict[str, nn.Parameter]) -> float:
    """Each rank's norm by PyTorch, and their squares added up over the ranks."""
    own = torch.nn.utils.get_total_norm([p.grad for p in named.values() if p.grad is not None])
    squares = own.square()
    dist.all_reduce(squares)
    return float(squares.sqrt())


def _nothing_on_one_rank() -> list[nn.Parameter]:
    p = _sharded([3.0, 0.0])
    if dist.get_rank() == 1:
        p.grad = None
    return [p]


CASES = [
    Case(
        "Parameters that are cut by hand: each rank clips by the norm of its own part",
        5.0,
        lambda: _clip_as_torch(*_by_hand().values()),
        lambda: _clip_group(_by_hand()),
        "`clip_(..., group=group)`",
    ),
    Case(
        "The local parts of FSDP2's gradients, measured for a log: low by √ranks",
        4.0,
        lambda: float(torch.nn.utils.get_total_norm([_rows().grad.to_local()])),
        lambda: float(drop_in.get_total_norm([_rows().grad])),
        "`get_total_norm` of the gradients themselves",
        4,
    ),
    Case(
        "The largest element: each rank has its own",
        4.0,
        lambda: _clip_as_torch(_sharded([3.0, 4.0]), norm=float("inf")),
        lambda: _drop_in(_sharded([3.0, 4.0]), norm=float("inf")),
        "`clip_grad_norm_`",
    ),
    Case(
        "DTensors beside plain tensors",
        5.0,
        lambda: _clip_as_torch(*_beside()),
        lambda: _drop_in(*_beside()),
        "`clip_grad_norm_`",
    ),
    Case(
        "Experts on a mesh of their own beside dense parameters",
        5.0,
        lambda: _clip_as_torch(*_two_meshes()),
        lambda: _drop_in(*_two_meshes()),
        "`clip_grad_norm_`",
        4,
    ),
    Case(
        "Experts that are plain tensors, one on each rank: a rank does not count the others'",
        3.0,
        lambda: _clip_as_torch(*_plain_experts().values()),
        lambda: _clip_group(_plain_experts()),
        "`clip_(..., group=group)`",
    ),
    Case(
        "The same, squares added up over all ranks by hand: what all have is counted on each",
        3.0,
        lambda: _summed_by_hand(_plain_experts()),
        lambda: _clip_group(_plain_experts()),
        "`clip_(..., group=group)`",
    ),
    Case(
        "An embedding tied across two pipeline stages, squares added up by hand: it is counted twice",
        800.0**0.5,
        lambda: _summed_by_hand(_tied()),
        lambda: _clip_group(_tied()),
        "`clip_(..., group=group)`",
    ),
    Case(
        "A rank without any gradient",
        3.0,
        lambda: _clip_as_torch(*_nothing_on_one_rank()),
        lambda: _drop_in(*_nothing_on_one_rank()),
        "`clip_grad_norm_`",
    ),
]


def _one(number: int, which: str) -> float:
    return getattr(CASES[number], which)()


def seen(ranks: Ranks, number: int, which: str) -> str:
    """Return what a case comes to on all ranks, in words."""
    case = CASES[number]
    return _words(ranks.outcomes(case.ranks, _one, number, which))


def is_right(text: str, case: Case) -> bool:
    """Whether every rank had the right norm."""
    return text == f"{case.right:.4g}"


def _words(found: list[Outcome]) -> str:
    if any(outcome.error for outcome in found):
        waited = any(word in outcome.message for outcome in found for word in _LEFT)
        return "hangs" if waited else f"raises `{next(o.kind for o in found if o.error)}`"
    norms = [f"{outcome.value:.4g}" for outcome in found]
    return norms[0] if len(set(norms)) == 1 else ", ".join(norms[:-1]) + f" and {norms[-1]}"


def table(ranks: Ranks) -> str:
    """Return the table, in Markdown."""
    lines = ["| case | right | torch 2.13 | gradclip | how |", "| --- | --- | --- | --- | --- |"]
    for number, case in enumerate(CASES):
        theirs, ours = seen(ranks, number, "torch"), seen(ranks, number, "gradclip")
        lines.append(f"| {case.text} | {case.right:.4g} | {theirs} | {ours} | {case.call} |")
    return "\n".join(lines) + "\n"


def on_the_page() -> str:
    """Return the table as docs/sharding.md has it."""
    return PAGE.read_text().split(BEGIN)[1].split(END)[0]


def main() -> None:
    """Print the table, or write it to the page."""
    ranks = Ranks()
    try:
        made = table(ranks)
    finally:
        ranks.stop()
    if "--write" not in sys.argv:
        print(made, end="")
        return
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(before + BEGIN + made + END + rest.split(END)[1])


if __name__ == "__main__":
    from tests.distributed import table as module  # noqa: PLW0406  (under the name that the ranks know it by)

    module.main()
