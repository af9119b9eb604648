"""The short spelling of a recipe, ``name:argument,argument,key=value``, and the long form that ``repr`` prints.

Arguments are numbers, words, ``true``/``false``, lists with ``|`` between the items, and moving thresholds:
``global_norm:cosine(10,1,1000)`` goes from 10 to 1 over 1000 steps, ``cosine(10,1,1000,200)`` from step 200 on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from inspect import Parameter
from typing import TYPE_CHECKING, Any

from gradclip import nonfinite, norms, rescales, scopes, thresholds
from gradclip.errors import RecipeError
from gradclip.registry import RECIPES, Recipe

if TYPE_CHECKING:
    import ast

    from gradclip.chain import Chain
    from gradclip.clipping import Clipping

__all__ = ["METHODS", "parse", "spell"]

_PATTERNS = ("exclude", "patterns")
"""Arguments that are words even where they look like numbers."""
METHODS: dict[str, type] = {}
"""The classes of whole methods, which say themselves that they are."""
_ALIASES = {"normalise": "normalize"}
_MOVING: dict[str, Callable[..., thresholds.Threshold]] = {"linear": thresholds.Linear, "cosine": thresholds.Cosine}


def parse(spelling: str) -> Clipping | Chain:
    """Read a recipe from its short spelling or its long form.

    Raises:
        RecipeError: no such recipe (the nearest name is suggested), or an argument is wrong.

    >>> parse("agc:0.02,exclude=head.*|*.bias").scope
    PerUnit(exclude=('head.*', '*.bias'), axis=None)
    """
    text = spelling.strip()
    if text.startswith(("Clipping(", "Chain(")):
        return _parse_long(text)
    name, _, rest = text.partition(":")
    name = _ALIASES.get(name.strip(), name.strip())
    recipe = RECIPES.get(name)
    if recipe is None:
        from difflib import get_close_matches

        near = get_close_matches(name, RECIPES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(RECIPES)}"
        raise RecipeError(f"unknown recipe {name!r}: {hint}")
    args, kwargs = _arguments(recipe, rest)
    try:
        return recipe.build(*args, **kwargs)
    except (TypeError, ValueError) as error:
        usage = f"{recipe.name}:{','.join(recipe.parameters)}"
        raise RecipeError(f"cannot read {text!r}: {_readable(error, recipe)} ({usage})") from error


def spell(clipping: Clipping | Chain) -> str:
    """Write a method as its short spelling where a recipe has one, else in the long form.

    >>> from gradclip import Clipping
    >>> spell(Clipping(threshold=thresholds.Linear(10, 1, 1000)))
    'global_norm:linear(10.0,1.0,1000)'
    """
    found: list[str] = []
    for recipe in RECIPES.values():
        given = _given(recipe, clipping)
        with suppress(TypeError, ValueError):
            if recipe.build(**given) == clipping:
                found.append(_short(recipe, given))
    alone = len(clipping.stages) == 1
    long = repr(clipping) if alone else f"Chain({', '.join(repr(str(s)) for s in clipping.stages)})"
    return min(found, key=len, default=long)


def _given(recipe: Recipe, clipping: Clipping | Chain) -> dict[str, Any]:
    """Return a recipe's arguments as a method's axes hold them: each is a field, or a property, of the same name."""
    parts = [part for stage in clipping.stages for part in _parts(stage)]
    holders = {name: next((part for part in parts if hasattr(part, name)), None) for name in recipe.parameters}
    given = {name: getattr(part, name) for name, part in holders.items() if part is not None}
    if "low" in recipe.parameters:
        given.setdefault("low", clipping.stages[0].threshold)  # a moving bound is given as the lower one
    return given


def _parts(stage: Clipping) -> list[object]:
    threshold = stage.threshold
    rules = threshold.rules if isinstance(threshold, thresholds.Minimum) else ()
    return [stage, stage.rescale, stage.scope, threshold, *rules]


def _arguments(recipe: Recipe, text: str) -> tuple[list[Any], dict[str, Any]]:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for part in _split(text):
        key, equals, word = part.partition("=")
        if not equals:
            args.append(_value(part))
        elif key.strip() in recipe.parameters:
            kwargs[key.strip()] = tuple(word.strip().split("|")) if key.strip() in _PATTERNS else _value(word)
        else:
            raise RecipeError(f"{recipe.name} has no argument {key.strip()!r}: it takes {', '.join(recipe.parameters)}")
    return args, kwargs


def _split(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if depth:
        raise RecipeError(f"unbalanced parentheses in {text!r}")
    return [part.strip() for part in parts if part.strip()]


def _value(word: str) -> Any:
    word = word.strip()
    if word.endswith(")"):
        name, _, inside = word[:-1].partition("(")
        if name not in _MOVING:
            raise RecipeError(f"unknown threshold {word!r}: write linear(start,end,steps) or cosine(start,end,steps,after)")
        try:
            return _MOVING[name](*(_value(part) for part in _split(inside)))
        except (TypeError, ValueError) as error:
            why = "" if isinstance(error, TypeError) else f": {error}"
            raise RecipeError(
                f"cannot read {word!r}{why}; write {name}(start,end,steps), or with the step it begins at last"
            ) from error
    if "|" in word:
        return tuple(_value(part) for part in word.split("|"))
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _short(recipe: Recipe, given: Mapping[str, Any]) -> str:
    """Print the arguments that differ from their defaults: by name after one that is left out, words by name always."""
    parts: list[str] = []
    bare = True
    for name, parameter in recipe.parameters.items():
        written = _written(given.get(name, parameter.default))
        bare = bare and name not in _PATTERNS and parameter.kind is not Parameter.KEYWORD_ONLY
        if parameter.default is not Parameter.empty and written == _written(parameter.default):
            bare = False
            continue
        parts.append(written if bare else f"{name}={written}")
        bare = bare and name != "threshold"
    return f"{recipe.name}:{','.join(parts)}" if parts else recipe.name


def _written(value: Any) -> str:
    match value:
        case thresholds.Constant():
            return _written(value.value)
        case thresholds.Linear() | thresholds.Cosine():
            numbers = (value.start, value.end, value.steps, value.after)
            inside = ",".join(_written(v) for v in (numbers if value.after else numbers[:3]))
            return f"{type(value).__name__.lower()}({inside})"
        case thresholds.Threshold():
            raise ValueError(f"{value!r} has no short spelling")
        case norms.Norm():
            if value.mean and value != norms.RMS:
                raise ValueError(f"{value!r} has no short spelling")
            return "rms" if value.mean else f"{value.p!r}".removesuffix(".0")
        case nonfinite.Nonfinite():
            if value != type(value)():
                raise ValueError(f"{value!r} has no short spelling")
            return type(value).__name__.lower()
        case bool() | None:
            return str(value).lower()
        case tuple():
            return "|".join(_written(v) for v in value)
        case _:
            return str(value)


def _parse_long(text: str) -> Clipping | Chain:
    import ast

    try:
        built = _build(ast.parse(text, mode="eval").body)
    except (SyntaxError, TypeError, ValueError) as error:
        raise RecipeError(f"cannot read {text!r}: {error}") from error
    method: Clipping | Chain = built
    return method


_AXES = (scopes, norms, thresholds, rescales, nonfinite)
_NAMES: dict[str, Any] = {
    "inf": math.inf,
    **{name: getattr(axis, name) for axis in _AXES for name in axis.__all__},
}


def _build(node: ast.expr) -> Any:
    """Build what a repr of this library says: calls of its own axis classes on literals, and nothing else."""
    import ast

    match node:
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in METHODS:
            return METHODS[name](*map(_build, args), **{str(k.arg): _build(k.value) for k in keywords})
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in _NAMES and name[0].isupper():
            return _NAMES[name](*map(_build, args), **{str(k.arg): _build(k.value) for k in keywords})
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.Tuple(elts=items):
            return tuple(map(_build, items))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_build(operand)
        case ast.Constant(value=value):
            return value
    raise ValueError(f"{ast.unparse(node)!r} is not part of a recipe (a schedule that is a function has no spelling)")


def _readable(error: Exception, recipe: Recipe) -> str:
    """Take Python's own words about a call out of a message."""
    return str(error).replace(f"{recipe.name}() ", "it is ")
