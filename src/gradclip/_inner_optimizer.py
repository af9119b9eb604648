"""The optimizer whose ``step()`` really steps: a wrapper (Lookahead, SAM, a trainer's own) has one inside it."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["check_hooks", "outer_to_inner"]


def outer_to_inner(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """Return an optimizer and those inside it that step the same parameters; the last one is where a step is to be clipped.

    A wrapper may take the inner step at another time, with other gradients, or not in its own ``step()`` at all (the
    ``second_step()`` of SAM).
    """
    found = [optimizer]
    while len(inside := _inside(found[-1])) == 1 and all(inside[0] is not one for one in found):
        found += inside
    return found


def check_hooks(optimizer: Any) -> None:
    """Refuse what is no optimizer, or one that would not call a hook on its step.

    Raises:
        TypeError: with what to write instead.
    """
    name = type(optimizer).__name__
    if not isinstance(optimizer, torch.optim.Optimizer):
        names = [key for key, one in _attributes(optimizer).items() if isinstance(one, torch.optim.Optimizer)]
        if names:
            instead = f"attach to the optimizer inside it, its .{names[0]}"
        elif hasattr(optimizer, "step"):
            instead = "call clip_() of a gradclip.Clipper(parameters, ...) before its step()"
        else:
            instead = "for a model use gradclip.clip_"
        raise TypeError(f"attach takes a torch.optim optimizer, not {name}; {instead}")
    if "_optimizer_step_pre_hooks" not in vars(optimizer) or not getattr(type(optimizer).step, "hooked", False):
        raise TypeError(
            f"{name}.step() calls no hooks, so nothing would be clipped: its __init__ does not call that of "
            "torch.optim.Optimizer. Attach to the optimizer that it wraps, or call clip_() of a gradclip.Clipper(model, ...) "
            "before its step()"
        )


def _inside(optimizer: Any) -> list[torch.optim.Optimizer]:
    """Return the optimizers among its attributes that have the very same parameters."""
    inside = {id(one): one for one in _attributes(optimizer).values() if isinstance(one, torch.optim.Optimizer)}
    inside.pop(id(optimizer), None)
    own = _ids(optimizer) if inside else set()
    return [one for one in inside.values() if own and _ids(one) == own]


def _ids(optimizer: Any) -> set[int]:
    return {id(p) for group in getattr(optimizer, "param_groups", None) or () for p in group["params"]}


def _attributes(one: Any) -> dict[str, Any]:
    return getattr(one, "__dict__", {})
