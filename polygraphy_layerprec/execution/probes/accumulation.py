"""Sums of many terms: harmless when accumulated in FP32, at risk on hardware that uses FP16."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from polygraphy_layerprec.execution.errors import NodeError
from polygraphy_layerprec.execution.kernels.node_session import tensor_of, value_of
from polygraphy_layerprec.execution.streams import is_float, largest_finite
from polygraphy_layerprec.model.operators import PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnxruntime as ort

    from polygraphy_layerprec.execution.kernels.device_runner import Runner
    from polygraphy_layerprec.model import Node
    from polygraphy_layerprec.precision import Precision

__all__ = ["sum_of_terms"]

_SUMS: Final = frozenset({"ReduceSum"})
_MEANS: Final = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})


def sum_of_terms(
    runner: Runner,
    node: Node,
    inputs: Mapping[str, ort.OrtValue],
    largest_of: Callable[[str], float],
    precision: Precision,
) -> float:
    """Returns the largest sum of |terms| that a reduction accumulates.

    The bound "terms times largest product" is tried first; only where it leaves the range does the
    node run again, on magnitudes.

    Args:
        runner: Runs the node.
        node: The node.
        inputs: Its reference inputs, by name.
        largest_of: Returns the largest finite magnitude of a float input, or a bound for it.
        precision: The low precision.

    Returns:
        The largest sum, or 0 where the node is no reduction or surely stays in range.
    """
    if node.domain or node.op_type not in PRODUCTS | _SUMS | _MEANS:
        return 0.0
    names = [name for name in node.inputs[:2] if name and is_float(inputs[name])]
    if not names:
        return 0.0
    operands = [inputs[name] for name in names]
    terms = _most_terms(node, operands)
    bound = terms * float(np.prod([largest_of(name) for name in names]))
    if bound <= precision.max_finite:
        return 0.0
    magnitudes = {
        name: tensor_of(np.abs(value_of(tensor))) if is_float(tensor) else tensor
        for name, tensor in inputs.items()
    }
    try:
        (total,) = runner.run(node, magnitudes)[:1]
    except NodeError:
        return 0.0
    if total is None:
        return 0.0
    return largest_finite(value_of(total)) * _terms_of_mean(node, operands[0], total)


def _terms_of_mean(node: Node, operand: ort.OrtValue, mean: ort.OrtValue) -> int:
    """How many terms a mean adds up before it divides; 1 where the node is a sum."""
    if node.op_type not in _MEANS:
        return 1
    if node.op_type == "AveragePool":
        kernel: list[int] = node.attributes["kernel_shape"]
        return math.prod(kernel)
    return _size(operand) // max(_size(mean), 1)


def _most_terms(node: Node, operands: list[ort.OrtValue]) -> int:
    """How many terms an output element can have at most."""
    first: list[int] = operands[0].shape()
    last: list[int] = operands[-1].shape()
    if node.op_type in {"MatMul", "Gemm"}:
        return max(first) if first else 1
    if node.op_type in {"Conv", "ConvTranspose"}:
        return math.prod(last) // max(1, min(last[:2]))
    return math.prod(first)


def _size(tensor: ort.OrtValue) -> int:
    shape: list[int] = tensor.shape()
    return math.prod(shape)
