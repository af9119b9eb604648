"""A cache for functions of a run: its results are kept while the run is alive, and forgotten with it."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

__all__ = ["weakly_cached"]

Thing = TypeVar("Thing")
Rest = ParamSpec("Rest")
Result = TypeVar("Result")


def weakly_cached(function: Callable[Concatenate[Thing, Rest], Result]) -> Callable[Concatenate[Thing, Rest], Result]:
    """Keep what a function returns for its first argument, by identity, as long as that lives; nobody may change it.

    >>> class Run: ...
    >>> @weakly_cached
    ... def looked(run: Run) -> list[str]:
    ...     print("looking")
    ...     return ["found"]
    >>> run = Run()
    >>> looked(run), looked(run)
    looking
    (['found'], ['found'])
    """
    kept: weakref.WeakKeyDictionary[Any, dict[Any, Result]] = weakref.WeakKeyDictionary()

    @functools.wraps(function)
    def remembered(thing: Thing, /, *args: Rest.args, **kwargs: Rest.kwargs) -> Result:
        known = kept.setdefault(thing, {})
        key = (args, tuple(kwargs.items()))
        if key not in known:
            known[key] = function(thing, *args, **kwargs)
        return known[key]

    return remembered
