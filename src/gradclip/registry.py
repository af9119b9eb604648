"""Where recipes are known by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from gradclip.chain import Chain
    from gradclip.clipping import Clipping

__all__ = ["RECIPES", "Recipe", "recipe"]


@dataclass(frozen=True)
class Recipe:
    """A named method: how it is built, and what the table of recipes says of it."""

    name: str
    build: Callable[..., Clipping | Chain]
    formula: str
    source: str

    @property
    def summary(self) -> str:
        """The first line of its documentation."""
        return (self.build.__doc__ or "").strip().splitlines()[0]

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """The arguments it takes, by name."""
        return signature(self.build).parameters

    @property
    def defaults(self) -> str:
        """The arguments that have a default worth showing, as they are spelled."""
        shown = (p for p in self.parameters.values() if p.name not in ("exclude", "nonfinite"))
        return ", ".join(p.name if p.default is Parameter.empty else f"{p.name}={_number(p.default)}" for p in shown)


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


RECIPES: dict[str, Recipe] = {}
"""Every recipe by name, in the order in which a user should meet them."""


_Build = TypeVar("_Build", bound="Callable[..., Clipping | Chain]")


def recipe(formula: str, source: str) -> Callable[[_Build], _Build]:
    """Register a recipe under its function's name."""

    def register(build: _Build) -> _Build:
        RECIPES[build.__name__] = Recipe(build.__name__, build, formula, source)
        return build

    return register
