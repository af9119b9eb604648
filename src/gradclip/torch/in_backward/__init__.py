"""Clipping each gradient as it appears, for optimizers that step inside ``backward()``."""

from gradclip.torch.in_backward.in_backward import InBackward

__all__ = ["InBackward"]
