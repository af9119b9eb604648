"""Which way a method is carried out, chosen when it is laid out."""

from __future__ import annotations

from gradclip.clipping import Clipping
from gradclip.torch.clamping import ClampElements, ClampTensors
from gradclip.torch.layout import Layout
from gradclip.torch.scaling import ScaleElements, ScaleTensors, ScaleTogether, ScaleUnits
from gradclip.torch.strategy import Strategy

__all__ = ["strategy_for"]


def strategy_for(clipping: Clipping, layout: Layout) -> Strategy:
    """Return the way in which a method is carried out."""
    scope, rescale = clipping.scope, clipping.rescale
    if scope.per_element:
        known = clipping.threshold.uniform and rescale.caps
        return ClampElements(clipping, layout) if known else ScaleElements(clipping, layout)
    if layout.units is not None:
        return ScaleUnits(clipping, layout)
    if rescale.elementwise:
        return ClampTensors(clipping, layout)
    return ScaleTogether(clipping, layout) if layout.one_block else ScaleTensors(clipping, layout)
