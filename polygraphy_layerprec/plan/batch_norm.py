"""BatchNormalization as TensorRT computes it: one scale and one shift, folded before rounding.

Measured with TensorRT-RTX 1.7.1: four initializers of X's type parse to one SCALE, folded in FP32.
Parameters that are computed, or that stand behind an Identity, parse to separate arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.model import Graph, Node

    Array = npt.NDArray[np.float32]

__all__ = ["epsilon_of", "fold_parameters", "is_folded", "normalize_in_steps", "parameter_names"]

_DEFAULT_EPSILON = 1e-5


def parameter_names(node: Node) -> tuple[str, ...]:
    """Returns the names of scale, bias, mean and variance."""
    return node.inputs[1:5]


def epsilon_of(node: Node) -> np.float32:
    """Returns what is added to the variance."""
    return np.float32(node.attributes.get("epsilon", _DEFAULT_EPSILON))


def is_folded(graph: Graph, node: Node) -> bool:
    """Whether a builder makes one scale and one shift of a node's four parameters."""
    if node.op_type != "BatchNormalization" or node.domain or len(node.inputs) != 5:
        return False
    if node.attributes.get("training_mode") or any(node.outputs[1:]):
        return False
    names = parameter_names(node)
    return all(name in graph.weights and graph.is_fp32(name) for name in (*names,)) and (
        graph.is_fp32(node.inputs[0])
    )


def fold_parameters(
    scale: Array, bias: Array, mean: Array, variance: Array, epsilon: np.float32
) -> tuple[Array, Array]:
    """Returns scale and shift, so that Y = scale X + shift (Ioffe and Szegedy, 2015), in FP32.

    Args:
        scale: Shape `(channels,)`, as all others.
        bias: What is added at the end.
        mean: Mean of the inputs.
        variance: Variance of the inputs.
        epsilon: What is added to the variance.
    """
    with np.errstate(all="ignore"):
        factor = (scale / np.sqrt(variance + epsilon)).astype(np.float32)
        return factor, (bias - mean * factor).astype(np.float32)


def normalize_in_steps(
    x: Array,
    parameters: tuple[Array, Array, Array, Array],
    epsilon: np.float32,
    rounded: Callable[[Array], Array],
    *,
    deviation_in_fp32: bool,
) -> Array:
    """Returns Y by TensorRT's separate layers: (X - mean) / sqrt(variance + epsilon) scale + bias.

    Args:
        x: Shape `(batch, channels, ...)`, rounded already.
        parameters: Scale, bias, mean and variance, each `(channels,)`, in FP32.
        epsilon: What is added to the variance.
        rounded: What becomes of every result.
        deviation_in_fp32: Whether the root is of constants, which the builder computes in FP32.
    """
    shape = (1, -1, *[1] * (x.ndim - 2))
    scale, bias, mean, variance = (values.reshape(shape) for values in parameters)
    with np.errstate(all="ignore"):
        if deviation_in_fp32:
            deviation = rounded(np.sqrt(variance + epsilon))
        else:
            deviation = rounded(np.sqrt(rounded(rounded(variance) + epsilon)))
        quotient = rounded(rounded(x - rounded(mean)) / deviation)
        return rounded(rounded(rounded(scale) * quotient) + rounded(bias))
