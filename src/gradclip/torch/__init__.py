"""What a PyTorch user imports: ``clip_``, ``clip``, ``Clipper``, ``attach``, ``InBackward``, ``tensor_norms``, drop-ins."""

from __future__ import annotations

import sys

import torch

from gradclip._arrays import namespace
from gradclip._torch_import import torch_imported
from gradclip.torch.attachment import Attachment, attach
from gradclip.torch.clipper import Clipper
from gradclip.torch.dropin import (
    clip_grad_norm,
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from gradclip.torch.functions import clip, clip_, tensor_norms
from gradclip.torch.in_backward import InBackward

__all__ = [
    "Attachment", "Clipper", "InBackward", "attach", "clip", "clip_", "clip_grad_norm", "clip_grad_norm_", "clip_grad_value_",
    "clip_grads_with_norm_", "get_total_norm", "tensor_norms",
]  # fmt: skip

namespace(torch.empty(0))  # found once, before torch.compile traces anything: it cannot trace the search without warnings
torch_imported(sys.modules[__name__])
