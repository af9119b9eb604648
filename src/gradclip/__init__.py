"""Gradient clipping for Python: clip anything exactly, in one line.

    import gradclip

    result = gradclip.clip_(model, gradclip.global_norm(1.0))        # in place: a model, an optimizer or parameters
    copies = gradclip.clip(grads, gradclip.value(-0.5, 0.5))         # out of place
    handle = gradclip.attach(optimizer, "global_norm:1.0")     # inside optimizer.step(), for every step

Importing this package loads next to nothing; its names are loaded when they are first used, and PyTorch with those that need
it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradclip.chain import Chain
    from gradclip.clipping import Clipping
    from gradclip.errors import GradclipError, NonFiniteGradientError, RecipeError, StateError, TargetError
    from gradclip.nonfinite import Propagate, Raise, Skip, Zero
    from gradclip.norms import L1, L2, LINF, RMS, Norm
    from gradclip.recipes import (
        adagc,
        agc,
        aggc,
        auto,
        autoclip,
        block_rms,
        global_norm,
        group_norm,
        norm_growth,
        normalize,
        quantile,
        skip_step,
        spam,
        stable_spam,
        tensor_norm,
        trust,
        value,
        zclip,
    )
    from gradclip.rescales import Band, Clamp, Drop, Hard, Normalize, Soft
    from gradclip.result import ClipResult
    from gradclip.scopes import Global, PerElement, PerGroup, PerTensor, PerUnit
    from gradclip.spelling import parse
    from gradclip.thresholds import (
        Bounds,
        Constant,
        Cosine,
        Ema,
        EmaRatio,
        Growth,
        Linear,
        Mean,
        Minimum,
        Moments,
        Outlier,
        Percentile,
        Quantile,
        Relative,
        Schedule,
        SecondMoment,
        Stride,
        Trust,
        Typical,
        ZScore,
    )
    from gradclip.torch import Attachment, Clipper, InBackward, attach, clip, clip_, tensor_norms
    from gradclip.watch.api import Recording, record

__version__ = "0.1.0"

__all__ = [
    # use
    "Attachment", "ClipResult", "Clipper", "InBackward", "Recording",
    "attach", "clip", "clip_", "parse", "record", "tensor_norms",
    # recipes
    "adagc", "agc", "aggc", "auto", "autoclip", "block_rms", "global_norm", "group_norm", "norm_growth", "normalize",
    "quantile", "skip_step", "spam", "stable_spam", "tensor_norm", "trust", "value", "zclip",
    # the algebra: a method, and the members of its five axes
    "Chain", "Clipping",
    "Global", "PerElement", "PerGroup", "PerTensor", "PerUnit",
    "L1", "L2", "LINF", "RMS", "Norm",
    "Bounds", "Constant", "Cosine", "Ema", "EmaRatio", "Growth", "Linear", "Mean", "Minimum", "Moments", "Outlier",
    "Percentile", "Quantile", "Relative", "Schedule", "SecondMoment", "Stride", "Trust", "Typical", "ZScore",
    "Band", "Clamp", "Drop", "Hard", "Normalize", "Soft",
    "Propagate", "Raise", "Skip", "Zero",
    # errors
    "GradclipError", "NonFiniteGradientError", "RecipeError", "StateError", "TargetError",
]  # fmt: skip

_WITH_TORCH = {
    **dict.fromkeys(("Attachment", "Clipper", "InBackward", "attach", "clip", "clip_", "tensor_norms"), "gradclip.torch"),
    **dict.fromkeys(("Recording", "record"), "gradclip.watch.api"),
}
_ALGEBRA = (
    "chain", "clipping", "errors", "nonfinite", "norms", "recipes", "rescales", "result", "scopes", "spelling", "thresholds",
)  # fmt: skip
"""The modules that the other names come from."""


def __getattr__(name: str) -> Any:
    """Load a name when it is first used: the algebra all at once, and what needs PyTorch by itself."""
    if name in _WITH_TORCH:
        globals()[name] = getattr(import_module(_WITH_TORCH[name]), name)
    elif name in _ALGEBRA:
        return import_module(f"gradclip.{name}")
    elif name in __all__:
        for module in (import_module(f"gradclip.{part}") for part in _ALGEBRA):
            globals().update({public: getattr(module, public) for public in module.__all__ if public in __all__})
    if name not in globals():
        raise AttributeError(f"module 'gradclip' has no attribute {name!r}")
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
