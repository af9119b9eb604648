"""What a user may pass to be clipped, and what clipping needs to know of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from gradclip._cached import cached_property
from gradclip.backends import Shards, group_of, reshaped, shards_of
from gradclip.clipping import Clipping
from gradclip.errors import TargetError, listed
from gradclip.scopes import Entry
from gradclip.torch.refused_parameters import check_parameter
from gradclip.torch.stages import on_all_ranks

__all__ = ["Clippable", "Target", "optimizer_names", "resolve"]

Clippable: TypeAlias = (
    nn.Module | torch.optim.Optimizer | Tensor | Mapping[str, Tensor] | Iterable[Tensor] | Iterable[tuple[str, Tensor]]
)
"""A model, an optimizer, one parameter, or parameters: named (a mapping or pairs, as ``model.named_parameters()``) or not."""


@dataclass(frozen=True)
class Target:
    """The parameters, each once, and for each what a scope may know of it."""

    parameters: tuple[Tensor, ...]
    entries: tuple[Entry, ...]
    shards: Shards | None = None
    """How they are cut over ranks, if they are."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name of each parameter."""
        return tuple(entry.name for entry in self.entries)

    @property
    def own(self) -> tuple[Tensor, ...]:
        """The parameters that this rank has, or has parts of."""
        if self.shards is None:
            return self.parameters
        return tuple(p for p, part in zip(self.parameters, self.shards.parts, strict=True) if not part.elsewhere)

    @cached_property
    def local_entries(self) -> tuple[Entry, ...]:
        """What a scope may know of the parts that this rank has."""
        if self.shards is None:
            return self.entries
        return tuple(replace(entry, shape=shape) for entry, shape in zip(self.entries, self.shards.shapes, strict=True))

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each, as it was looked up."""
        return tuple(entry.shape for entry in self.entries)

    def check_method(self, clipping: Clipping) -> None:
        """Refuse what no rank could tell from its parts.

        Raises:
            TargetError: the method, and what to use instead.
        """
        if self.shards is None:
            return
        if clipping.scope.per_element and clipping.threshold.couples:
            raise TargetError(f"{clipping} limits an element by others that are on other ranks: use a scope of whole tensors")
        if clipping.threshold.needs_lr and self.shards.across is not None and self.shards.across.stages:
            raise TargetError(
                f"{clipping} needs the learning rates of parameters that are on other stages: use a method that does not, such "
                'as "global_norm:1.0" or "zclip"'
            )

    def check_shapes(self, grads: Sequence[Tensor | None], weights: Sequence[Tensor | None] | None = None) -> None:
        """Refuse gradients, and weights beside them, of other shapes: they would be cut into units that are not theirs.

        Raises:
            TargetError: which one, and what to do.
        """
        for i in reshaped(grads, self.shapes):
            has, expected = tuple(grads[i].shape), self.shapes[i]  # type: ignore[union-attr]
            raise TargetError(
                f"the gradient of {self.names[i]!r} has shape {has}, but {expected} is expected: after giving a parameter "
                "other .data, call zero_grad() and backward() again (and make a new InBackward, if that is what clips)"
            )
        for i in reshaped(weights, self.shapes) if weights is not None else []:
            has, expected = tuple(weights[i].shape), self.shapes[i]  # type: ignore[index, union-attr]
            raise TargetError(
                f"the weights of {self.names[i]!r} have shape {has}, but its gradient {expected}: pass params in the order "
                "of the gradients; after giving a parameter other .data, call zero_grad() and backward() again"
            )


def resolve(
    target: Clippable | Target,
    optimizer: torch.optim.Optimizer | None = None,
    group: Any = None,
    method: str = "measure",
    *,
    strict: bool = True,
    complete: bool = False,
) -> Target:
    """Find the parameters in what a user passed; one that appears twice (tied weights) counts once.

    With ``optimizer`` its param groups are the groups, and every parameter must be one of its own; if not ``strict``, others
    are left out. ``complete`` takes all that it owns, named by the target or not. ``group`` is the process group over whose
    ranks plain tensors are cut, or whose ranks are pipeline stages. Where tensors are sharded, all ranks compare what they
    found, and what is to be done with it (``method``).

    Raises:
        TypeError: something else than a model, an optimizer or parameters; gradients instead of parameters.
        TargetError: an iterator with nothing left in it, a shard of a larger parameter, one that the optimizer does not own,
            or ranks that disagree.
    """
    process_group = group_of(group)
    if isinstance(target, torch.optim.Optimizer):
        optimizer = target
    groups = _groups(optimizer) if optimizer is not None else {}
    layouts = _unit_layouts(target)
    found: dict[int, tuple[Tensor, Entry]] = {}
    for name, parameter in chain(_named(target), optimizer_names(optimizer) if optimizer is not None and complete else ()):
        _check(name, parameter, group)
        if id(parameter) not in found:
            axis, runs = layouts.get(id(parameter), (0, 1))
            entry = Entry(name, tuple(parameter.shape), groups.get(id(parameter)), axis, runs)
            found[id(parameter)] = (parameter, entry)
    if optimizer is not None and target is not optimizer:
        found = _owned(found, groups, strict)
    parameters, entries = tuple(p for p, _ in found.values()), tuple(e for _, e in found.values())
    across = None
    if process_group is not None:
        parameters, entries, across = on_all_ranks(process_group, method, parameters, entries)
    return Target(parameters, entries, shards_of(parameters, method, [entry.name for entry in entries], across))


def _named(target: Clippable | Target) -> Iterator[tuple[str, Tensor]]:
    if isinstance(target, Target):
        here = set(map(id, target.own))
        yield from ((name, p) for name, p in zip(target.names, target.parameters, strict=True) if id(p) in here)
    elif isinstance(target, nn.Module):
        yield from target.named_parameters()
    elif isinstance(target, torch.optim.Optimizer):
        yield from optimizer_names(target)
    elif isinstance(target, Tensor):
        yield "0", target
    elif isinstance(target, Mapping):
        yield from target.items()
    elif isinstance(target, Iterable) and not isinstance(target, (str, bytes)):
        yield from _listed(target)
    else:
        raise TypeError(f"a model, an optimizer or parameters are expected, not {type(target).__name__}")


def _listed(target: Iterable[Tensor] | Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    item = None
    for number, item in enumerate(target):
        if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str):
            yield item
        elif isinstance(item, Tensor):
            yield str(number), item
        else:
            raise TypeError(f"parameters or (name, parameter) pairs are expected, but item {number} is {type(item).__name__}")
    if item is None and isinstance(target, Iterator):
        raise TargetError(
            "the iterator of parameters is empty, so nothing would be clipped: it was already consumed; "
            "pass the model, or list(model.parameters()), or call model.parameters() again"
        )


def optimizer_names(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Name parameters as the optimizer knows them (torch >= 2.6 keeps names it was built with), else by position."""
    for g, group in enumerate(optimizer.param_groups):
        names = group.get("param_names") or [f"group{g}.{i}" for i in range(len(group["params"]))]
        yield from zip(names, group["params"], strict=True)


def _groups(optimizer: torch.optim.Optimizer) -> dict[int, int]:
    return {id(p): g for g, group in enumerate(optimizer.param_groups) for p in group["params"]}


def _check(name: object, parameter: object, group: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"a parameter's name must be a string, not {type(name).__name__}")
    if not isinstance(parameter, Tensor):
        raise TypeError(f"{name!r} must be a parameter, not {type(parameter).__name__}")
    check_parameter(name, parameter, group)
    gradient_like = not parameter.is_leaf and not parameter.retains_grad
    if gradient_like or (not parameter.requires_grad and not isinstance(parameter, nn.Parameter) and parameter.grad is None):
        raise TypeError(
            f"{name!r} looks like a gradient, not a parameter, so there would be nothing to clip: "
            "pass the parameters (their .grad is clipped), or use gradclip.clip(gradients, ...) for copies"
        )


def _owned(found: dict[int, tuple[Tensor, Entry]], groups: Mapping[int, int], strict: bool) -> dict[int, tuple[Tensor, Entry]]:
    """Keep what the optimizer owns; a frozen parameter that it does not own is no mistake, any other is."""
    strangers = [e.name for key, (p, e) in found.items() if key not in groups and p.requires_grad]
    if strangers and strict:
        raise TargetError(
            f"the optimizer does not own {listed(strangers)}: add them to it, or pass only the parameters it steps"
        )
    return {key: pair for key, pair in found.items() if key in groups}


def _unit_layouts(target: Clippable | Target) -> dict[int, tuple[int, int]]:
    """Find the weights whose output units do not lie along axis 0: transposed convolutions, (in, out / groups, ...)."""
    if isinstance(target, Target):
        return {id(p): (e.unit_axis, e.unit_groups) for p, e in zip(target.parameters, target.entries, strict=True)}
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    modules = target.modules() if isinstance(target, nn.Module) else ()
    return {id(m.weight): (1, m.groups) for m in modules if isinstance(m, transposed)}
