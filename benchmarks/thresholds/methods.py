"""Who takes part: no clipping, a sweep of fixed thresholds, every published rule at its defaults, and auto."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["AUTO", "FIXED", "METHODS", "NONE", "PUBLISHED", "QUICK"]

NONE = "global_norm:inf"
AUTO = "auto"
FIXED = tuple(f"global_norm:{threshold:g}" for threshold in (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100))
PUBLISHED: Mapping[str, str] = {
    "agc": "agc",
    "trust": "trust",
    "trust, per tensor": "trust:per_tensor=true",
    "autoclip": "autoclip",
    "quantile": "quantile",
    "zclip": "zclip",
    "zclip, cap 1": "zclip:cap=1",
    "adagc": "adagc",
    "aggc": "aggc:patterns=*",
    "spam": "spam",
    "stable_spam": "stable_spam",
    "norm_growth": "norm_growth",
    "skip_step": "skip_step",
}
METHODS: Mapping[str, str] = {"none": NONE, **{f"fixed {s.split(':')[1]}": s for s in FIXED}, **PUBLISHED, "auto": AUTO}
"""Names and spellings."""
QUICK = ("none", "fixed 0.1", "fixed 1", "zclip", "trust", "auto")
"""The few that the quick form runs."""
