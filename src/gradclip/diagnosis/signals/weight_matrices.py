"""The weight matrices among a run's layers, in model order; biases, scales of norm layers and other vectors are apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradclip.diagnosis.readings.run_data import Floats, Layers, OptimizerRun
from gradclip.runs import TensorInfo

__all__ = ["Matrices", "matrices_of"]


@dataclass(frozen=True, eq=False)
class Matrices:
    """Norms of the layers that hold a matrix, steps x layers; NaN where there was none, or where it was no finite number."""

    names: tuple[str, ...]
    sizes: NDArray[np.int64]
    """Elements of each."""
    steps: NDArray[np.int64]
    norms: Floats


def matrices_of(optimizer: OptimizerRun, layers: Layers | None = None) -> Matrices:
    """Pick the layers with a tensor of two or more dimensions, in the order in which the optimizer holds them.

    A file that holds no shapes has them by name: ``...weight``.

    Args:
        optimizer: its gradients, unless ``layers`` is given.
        layers: other numbers of the same optimizer's layers, such as the updates relative to the weights.
    """
    layers = optimizer.layers if layers is None else layers
    is_matrix = _by_shape if any(tensor.shape for tensor in optimizer.tensor_infos) else _by_name
    matrices = {member for member, tensor in enumerate(optimizer.tensor_infos) if is_matrix(tensor)}
    places = [i for i, group in enumerate(layers.groups) if matrices.intersection(group.members)]
    sizes = [sum(optimizer.tensor_infos[member].numel for member in layers.groups[i].members) for i in places]
    norms = layers.norms[:, places].astype(np.float64)
    norms[~np.isfinite(norms)] = np.nan
    return Matrices(tuple(layers.groups[i].name for i in places), np.array(sizes, np.int64), layers.steps, norms)


def _by_shape(tensor: TensorInfo) -> bool:
    return len(tensor.shape) > 1


def _by_name(tensor: TensorInfo) -> bool:
    return tensor.name.rpartition(".")[2].startswith("weight")
