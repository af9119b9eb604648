"""What a watched run says of what it has not seen: no clipping, or no step at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradclip.diagnosis.formatting import plural

if TYPE_CHECKING:
    from gradclip.watch.observe.session import Session

__all__ = ["no_clipping", "no_steps"]


def no_clipping(session: Session) -> str:
    """Say that no clipping was seen, and what was seen instead that may be one."""
    steps, hooked = session.unknown_changes, session.hooked
    if steps:
        how = "by hand, or in a compiled function"
        return f"no clipping was seen, but before at least {plural(steps, 'step')} something changed the gradients: {how}"
    return (
        f"no clipping was seen; hooks on {plural(hooked, 'parameter')} may change gradients"
        if hooked
        else "no clipping was seen"
    )


def no_steps(session: Session | None, unseen: int = 0, watched: int = 0) -> list[str]:
    """Say what there was of a training, where there was no step in this process, and where one may have been.

    Args:
        session: what was seen here.
        unseen: how many processes of Python were started that cannot be seen.
        watched: how many were started that are watched.
    """
    called = f"backward() was called {plural(0 if session is None else session.backwards, 'time')}"
    if session is not None and session.moved:
        return [
            f"NOTHING WAS RECORDED: {called}, and the weights of {session.moved} changed, but its step() was not seen.",
            "A step inside a compiled function cannot be watched: run the script with TORCH_COMPILE_DISABLE=1 to record it.",
        ]
    here = " in this process" if unseen or watched else ""
    first = f"NOTHING WAS RECORDED: no training was seen. {called}, and no optimizer of torch.optim stepped{here}."
    if unseen:
        return [
            first,
            f"It started {plural(unseen, 'process')} of Python by subprocess, in which optimizers may have stepped: these "
            "cannot be seen from here. Put gradclip run into the command that they are started with.",
        ]
    if watched:
        return [first, f"Nor did one in {plural(watched, 'process')} that it started, as far as they were seen."]
    return [
        first,
        "Gradients taken with torch.autograd.grad and applied by hand, or by another framework, "
        "cannot be watched from outside.",
    ]
