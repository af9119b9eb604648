"""Tensors that both the compiled kernel and the GPU kernels take as they are."""

from __future__ import annotations

import torch
from torch import nn

PLAIN = {
    "transposed": lambda: torch.randn(4, 5).t(),
    "channels last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "a scalar": lambda: torch.randn(()),
    "a parameter": lambda: nn.Parameter(torch.randn(3)),
    "one that requires grad": lambda: torch.randn(3, requires_grad=True) * 2,
    "an axis of one": lambda: torch.randn(4, 1, 5).as_strided((4, 1, 5), (5, 999, 1)),
}
