"""Find names for parameters that an optimizer, or a hand-written update, holds without any."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

__all__ = ["kinds_of", "parameter_names"]


def parameter_names(parameters: Sequence[Tensor], groups: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """Name each parameter as its owner knows it: the optimizer, else the model it is part of, else a global variable.

    Args:
        parameters: in the order in which names are wanted.
        groups: those of the optimizer; torch >= 2.6 keeps the names of ``named_parameters()`` in them.

    Returns:
        One name each; ``tensor 3`` for what is known nowhere.
    """
    known = dict(_from_groups(groups))
    wanted = {id(p) for p in parameters}
    if not wanted <= known.keys():
        known = {**_from_globals(wanted), **_from_modules(wanted), **known}
    return [known.get(id(p), f"tensor {i}") for i, p in enumerate(parameters)]


def _from_groups(groups: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    for group in groups:
        for parameter, name in zip(group["params"], group.get("param_names", ()), strict=False):
            yield id(parameter), name


def _from_modules(wanted: set[int]) -> dict[int, str]:
    """Look through the living modules; the one that holds most of the parameters is the model."""
    roots: list[dict[int, str]] = []
    kinds = kinds_of(nn.Module)
    for module in [thing for thing in gc.get_objects() if type(thing) in kinds]:  # not isinstance: it would wake lazy proxies
        held = {id(p): name for name, p in _parameters_of(module) if id(p) in wanted}
        if held:
            roots.append(held)
    found: dict[int, str] = {}
    # Of two that hold the same, the wrapper's names (`module.` of DataParallel, `_orig_mod.` of compile) are the longer ones.
    for held in sorted(roots, key=lambda h: (-len(h), sum(map(len, h.values())))):
        if not held.keys() <= found.keys():
            found = {**held, **found}
    return found


def kinds_of(kind: type) -> set[type]:
    """The class and all that derive from it: looking a type up in a set is the quick way through a million objects."""
    found, waiting = set[type](), [kind]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += type.__subclasses__(one)
    return found


def _parameters_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The named parameters, without running a method of the script's own."""
    try:
        return list(nn.Module.named_parameters(module))
    except Exception:  # a module that is not finished, or that stands for something else
        return []


def _from_globals(wanted: set[int]) -> Mapping[int, str]:
    """Look among the script's own variables, and one level into its lists and dicts."""
    found: dict[int, str] = {}
    for name, value in list(vars(sys.modules["__main__"]).items()):
        inside = value.items() if type(value) is dict else enumerate(value) if type(value) in (list, tuple) else ()
        for label, thing in [(name, value), *((f"{name}[{key!r}]", item) for key, item in inside)]:
            if id(thing) in wanted:
                found.setdefault(id(thing), label)
    return found
