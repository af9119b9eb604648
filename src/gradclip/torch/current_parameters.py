"""The parameters that a model or an optimizer has now: looked at before every step, since they may have become others."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import chain
from operator import is_, itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from gradclip.errors import listed
from gradclip.torch.targets import Clippable, Target, optimizer_names, resolve

__all__ = ["CurrentParameters", "tree_of"]

_params_of = itemgetter("params")


class CurrentParameters:
    """The parameters that are clipped, found again where a model or an optimizer has got others.

    Where they were all that the optimizer steps, they stay all of them; where they were named as a part, new ones stay
    outside, which is said once.

    Args:
        source: a model, an optimizer, or anything else, which stays as it was found.
        target: what was found in it.
        optimizer: the optimizer that steps them.
        group: the process group over whose ranks plain tensors are cut, if they are.
    """

    def __init__(
        self, source: Clippable, target: Target, optimizer: torch.optim.Optimizer | None = None, group: Any = None
    ) -> None:
        is_optimizer = isinstance(source, torch.optim.Optimizer)
        self.optimizer: torch.optim.Optimizer | None = source if is_optimizer else optimizer  # type: ignore[assignment]
        """Whose groups and learning rates count."""
        self._source = source if is_optimizer or isinstance(source, nn.Module) else None
        self._group, self._told = group, False
        self.remember(target)

    def changed(self) -> bool:
        """Whether they are others now, or in other groups; for an optimizer it takes a few microseconds."""
        if self.optimizer is not None:
            lists = list(map(_params_of, self.optimizer.param_groups))
            return list(map(len, lists)) != self._sizes or not all(map(is_, chain.from_iterable(lists), self._owned))
        return isinstance(self._source, nn.Module) and tree_of(self._source) != self._tree

    def find(self) -> Target:
        """Look up parameters, names, groups and shapes anew; they count once they are remembered."""
        source = self.target if self._source is None else self._source
        found = resolve(source, self.optimizer, self._group, strict=False, complete=self.complete)
        if self.optimizer is not None:
            known = set(map(id, chain(found.parameters, self._owned)))
            self._tell([name for name, p in optimizer_names(self.optimizer) if id(p) not in known])
        return found

    def remember(self, target: Target) -> None:
        """Compare with these from now on."""
        groups = [] if self.optimizer is None else self.optimizer.param_groups
        lists: list[list[Tensor]] = list(map(_params_of, groups))
        self.target = target
        """What was found last."""
        self._sizes, self._owned = list(map(len, lists)), list(chain.from_iterable(lists))
        self.complete = set(map(id, self._owned)) == set(map(id, target.own))
        """They are all that the optimizer steps."""
        self._tree = tree_of(self._source) if isinstance(self._source, nn.Module) else []

    def _tell(self, left_out: Sequence[str]) -> None:
        if left_out and not self._told:
            self._told = True
            warnings.warn(
                f"gradclip does not clip {listed(left_out)}, which the optimizer has got since: parameters=... named a "
                "part of its parameters. detach() and attach() again to clip them too.",
                RuntimeWarning,
                stacklevel=4,
            )

    def __getstate__(self) -> dict[str, Any]:
        """In a copy of an optimizer no copy of the model is kept beside it: names and shapes are known."""
        state = vars(self).copy()
        if self.optimizer is not None and self._source is not self.optimizer:
            state["_source"] = None
        return state


def tree_of(model: nn.Module) -> list[int | str]:
    """Return the names in a model and the identities of its parameters, in its order: equal as long as nothing has changed."""
    found: list[int | str] = []
    todo: list[nn.Module | None] = [model]
    for module in todo:
        if module is not None:
            found += module._parameters
            found += map(id, module._parameters.values())
            found += module._modules
            todo += module._modules.values()
    return found
