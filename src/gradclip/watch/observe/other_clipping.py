"""Clipping functions of other libraries, by name: what of a call is the same as of PyTorch's own, and what is not."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor

from gradclip.watch.observe.call_wrapper import Call

__all__ = ["OTHERS", "OtherClipping"]


@dataclass(frozen=True)
class OtherClipping:
    """A function that clips, in a module that a script may import."""

    module: str
    name: str
    parameters: Callable[[Call], Any]
    """What is clipped: as ``torch.nn.utils.clip_grad_norm_`` takes it."""
    limit: Callable[[Call], float | None]
    """None where the call does not clip."""
    stages: Callable[[Call], bool]
    """Whether the norm goes over pipeline stages, of which this process has one."""

    def find(self) -> Callable[..., Any] | None:
        """Return the function, once the script has imported it."""
        return getattr(sys.modules.get(self.module), self.name, None)

    def result(self, norm: Tensor) -> Tensor | float:
        """Return a norm as the function does, on all ranks: some versions of it return a number, and declare nothing."""
        whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        function = self.find()
        declared = function is not None and "Tensor" in str(inspect.signature(function).return_annotation)
        return whole if declared else float(whole)


def _of_models(call: Call) -> Sequence[Tensor]:
    return [p for model in call.argument(1, "model_parts", ()) for p in model.parameters() if p.requires_grad]


def _has_stages(call: Call) -> bool:
    mesh = call.argument(5, "pp_mesh")
    return mesh is not None and mesh.size() > 1


OTHERS: Final = (
    OtherClipping(
        "torchtitan.distributed.utils",
        "clip_grad_norm_",
        parameters=lambda call: call.argument(0, "parameters"),
        limit=lambda call: call.argument(1, "max_norm"),
        stages=_has_stages,
    ),
    # scale_grads_and_clip_grad_norm divides the gradients, which must be done, and then calls this.
    OtherClipping(
        "nemo_automodel.components.training.utils",
        "clip_grad_norm",
        parameters=_of_models,
        limit=lambda call: call.argument(0, "max_grad_norm"),
        stages=lambda call: bool(call.kwargs.get("pp_enabled")),
    ),
)
