"""Conversions between numbers and types that ONNX-Runtime has tensors but no kernels for: FP4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx.reference import ReferenceEvaluator

from polygraphy_layerprec.execution.errors import NodeError
from polygraphy_layerprec.execution.kernels.node_model import (
    Detail,
    describe_inputs,
    neutral_node,
    node_model,
    session_names,
)
from polygraphy_layerprec.execution.kernels.ort_tensors import tensor_of, value_of

if TYPE_CHECKING:
    import onnxruntime as ort

    from polygraphy_layerprec.model import Graph, Node

__all__ = ["convert_by_reference", "is_conversion"]

_CONVERSIONS: Final = frozenset({"Cast", "CastLike", "DequantizeLinear", "QuantizeLinear"})


def is_conversion(node: Node) -> bool:
    """Returns whether a node gives numbers another type and computes nothing else."""
    return not node.domain and node.op_type in _CONVERSIONS


def convert_by_reference(
    graph: Graph, node: Node, feeds: Mapping[str, ort.OrtValue]
) -> list[ort.OrtValue | None]:
    """Returns the outputs of a conversion, from the reference implementation of ONNX.

    Args:
        graph: The model that the node is from.
        node: The node, which `is_conversion`.
        feeds: A value for each of the node's sources.

    Raises:
        NodeError: If the reference does not know these types either.
    """
    model = node_model(
        graph, node, neutral_node(node), describe_inputs(graph, node, feeds, Detail.TYPES)
    )
    inputs = {new: value_of(feeds[name]) for new, name in session_names(node)}
    try:
        results: Any = ReferenceEvaluator(model).run(None, inputs)
    except Exception as error:  # the reference raises whatever numpy and Python do
        raise NodeError(f"no implementation: {type(error).__name__}: {error!s:.200}") from error
    return [tensor_of(np.asarray(result)) for result in results]
