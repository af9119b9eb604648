"""Numbers as words and columns, the same on every page and in the terminal."""

from __future__ import annotations

import math
import time

__all__ = ["local_time", "number", "percent", "plural", "shorten"]


def local_time(seconds: object) -> str:
    """Return seconds since the epoch as local time; nothing for what is no time.

    >>> local_time("soon"), local_time(1e300), len(local_time(0.0))
    ('', '', 19)
    """
    if not isinstance(seconds, (int, float)):
        return ""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, OSError, ValueError):
        return ""


def number(value: float) -> str:
    """Three digits, which is what anyone reads.

    >>> number(0.12345), number(1234567.0), number(float("nan")), number(12345.0)
    ('0.123', '1.23e+06', 'NaN', '12,345')
    """
    if math.isnan(value):
        return "NaN"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def percent(share: float) -> str:
    """Return a share that says 0% and 100% only where that is exact; a small one has two digits, however small.

    >>> percent(1.0), percent(0.9999), percent(0.5), percent(1e-6), percent(1.4e-10), percent(0.0)
    ('100%', '>99.9%', '50.0%', '0.0001%', '1.4e-08%', '0%')
    >>> percent(2.5), percent(-0.5), percent(float("nan"))
    ('250.0%', '-50.0%', 'NaN')
    """
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    if math.isnan(share):
        return "NaN"
    if 0.9995 <= share < 1.0:
        return ">99.9%"
    return f"{100 * share:.2g}%" if abs(share) < 0.001 else f"{share:.1%}"


def plural(count: int, thing: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "step"), plural(12000, "step"), plural(2, "process")
    ('1 step', '12,000 steps', '2 processes')
    """
    ending = "" if count == 1 else "es" if thing.endswith("s") else "s"
    return f"{count:,} {thing}{ending}"


def shorten(name: str, most: int = 28) -> str:
    """Cut a long name in its middle, where names of layers differ least.

    >>> shorten("encoder.layers.11.attention.output.dense.weight", 24)
    'encoder.la…dense.weight'
    """
    if len(name) <= most:
        return name
    kept = (most - 1) // 2
    return f"{name[: kept - 1].rstrip('.')}…{name[-kept - 1 :].lstrip('.')}"
