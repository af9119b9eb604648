"""The named methods, each a few lines: a point of the algebra in :mod:`gradclip.clipping`.

A recipe's parameters are named like the axis fields they set; that is what lets :mod:`gradclip.spelling` print any recipe back
without knowing it.
"""

from gradclip.recipes.fixed import agc, block_rms, global_norm, group_norm, normalize, tensor_norm, trust, value
from gradclip.recipes.learned import adagc, aggc, auto, autoclip, norm_growth, quantile, skip_step, spam, stable_spam, zclip
from gradclip.registry import RECIPES, Recipe, recipe

__all__ = [
    "RECIPES", "Recipe", "recipe",
    "adagc", "agc", "aggc", "auto", "autoclip", "block_rms", "global_norm", "group_norm", "norm_growth", "normalize",
    "quantile", "skip_step", "spam", "stable_spam", "tensor_norm", "trust", "value", "zclip",
]  # fmt: skip
