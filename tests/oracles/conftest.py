"""The other frameworks run on the CPU, and Keras on PyTorch; set before anything imports them."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "torch"
os.environ["KERAS_TORCH_DEVICE"] = "cpu"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
