"""What a PyTorch user imports: drop-in functions, ``clip_``, ``clip``, ``Clipper``, ``attach`` and ``tensor_norms``."""

from __future__ import annotations

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

__all__ = [
    "Attachment", "Clipper", "attach", "clip", "clip_", "clip_grad_norm", "clip_grad_norm_", "clip_grad_value_",
    "clip_grads_with_norm_", "get_total_norm", "tensor_norms",
]  # fmt: skip
