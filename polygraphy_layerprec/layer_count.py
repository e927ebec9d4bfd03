"""How many layers a model has, without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from onnx import ModelProto, TensorProto, helper

from polygraphy_layerprec.emit.mixed_onnx.graph_view import view_graph
from polygraphy_layerprec.model import Role

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph

__all__ = ["count_layers"]

_RANKED: Final = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE})


def count_layers(graph: Graph) -> int:
    """Returns how many layers a ranking of the model would hold if all could be measured.

    A layer computes, and gives FP32 or FP64; a node of types that nobody tells counts as one.
    """
    types = view_graph(_without_weights(graph)).types
    return sum(
        node.role is Role.COMPUTES
        and any(name and types.get(name, TensorProto.FLOAT) in _RANKED for name in node.outputs)
        for node in graph.nodes
    )


def _without_weights(graph: Graph) -> ModelProto:
    """Returns the model with its weights declared as inputs: types need no values."""
    inputs = [
        helper.make_tensor_value_info(x.name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for x in graph.inputs
    ]
    inputs += [
        helper.make_tensor_value_info(x.name, x.tensor.data_type, x.shape)
        for x in graph.weights.values()
    ]
    opsets = [helper.make_opsetid(domain, version) for domain, version in graph.opsets.items()]
    nodes = [node.proto for node in graph.nodes]
    made = helper.make_graph(nodes, "types", inputs, [])
    return helper.make_model(made, opset_imports=opsets, ir_version=graph.ir_version)
