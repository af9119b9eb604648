"""Other functions that clip, by name: what of a call is the same as of PyTorch's own, and what is not."""

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
    refusal: Callable[[Call], str]
    """Why nothing else can clip in its place; empty where it can."""
    of_class: str = ""
    """The class that it is a method of, if it is one."""

    def find(self) -> Callable[..., Any] | None:
        """Return the function, once the script has imported it."""
        return getattr(self.owner(), self.name, None)

    def owner(self) -> Any:
        """Return the module or the class that has it; None while the script has not imported it."""
        module = sys.modules.get(self.module)
        return getattr(module, self.of_class, None) if self.of_class else module

    def result(self, norm: Tensor) -> Tensor | float:
        """Return a norm as the function does, on all ranks: some versions of it return a number, and declare nothing."""
        whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        function = self.find()
        declared = function is not None and "Tensor" in str(inspect.signature(function).return_annotation)
        return whole if declared else float(whole)


def _of_models(call: Call) -> Sequence[Tensor]:
    return [p for model in call.argument(1, "model_parts", ()) for p in model.parameters() if p.requires_grad]


def _over_stages(call: Call) -> str:
    mesh = call.argument(5, "pp_mesh")
    return STAGES if (mesh is not None and mesh.size() > 1) or call.kwargs.get("pp_enabled") else ""


STAGES: Final = "the script clips over pipeline stages, of which this process knows only its own"
FLAT: Final = "FullyShardedDataParallel keeps parts of parameters, whose norm only its own clip_grad_norm_ knows"

OTHERS: Final = (
    OtherClipping(
        "torchtitan.distributed.utils",
        "clip_grad_norm_",
        parameters=lambda call: call.argument(0, "parameters"),
        limit=lambda call: call.argument(1, "max_norm"),
        refusal=_over_stages,
    ),
    # scale_grads_and_clip_grad_norm divides the gradients, which must be done, and then calls this.
    OtherClipping(
        "nemo_automodel.components.training.utils",
        "clip_grad_norm",
        parameters=_of_models,
        limit=lambda call: call.argument(0, "max_grad_norm"),
        refusal=_over_stages,
    ),
    OtherClipping(
        "torch.distributed.fsdp.fully_sharded_data_parallel",
        "clip_grad_norm_",
        parameters=lambda call: list(call.args[0].parameters()),
        limit=lambda call: call.argument(1, "max_norm"),
        refusal=lambda _: FLAT,
        of_class="FullyShardedDataParallel",
    ),
)
