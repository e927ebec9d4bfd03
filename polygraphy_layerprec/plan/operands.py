"""Which operands of a node change their type when it is lowered, for each target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from onnx import TensorProto

from polygraphy_layerprec.model.operators import ITERATING
from polygraphy_layerprec.model.schemas import bound_variables, signature, type_string

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.model.schemas import Formal, Signature
    from polygraphy_layerprec.precision import Precision

__all__ = [
    "LOW_TENSOR_TYPES",
    "LowOperands",
    "network_operands",
    "says_output_type",
    "schema_operands",
]

LOW_TENSOR_TYPES: Final[dict[str, int]] = {
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
}

_FP32_POSITIONS: Final[dict[str, frozenset[int]]] = {
    # A quantised tensor's scale stays exact; indices, coordinates and sizes are no values.
    "DequantizeLinear": frozenset({0, 1}),
    "OneHot": frozenset({0, 1}),
    "Resize": frozenset({1, 2, 3}),
    "Upsample": frozenset({1}),
}
FP32_VARIABLES: Final = frozenset({("OneHot", "T1"), ("OneHot", "T2"), ("Resize", "T2")})
"""Type variables that stand for indices and coordinates, not for values of the network."""


@dataclass(frozen=True, slots=True)
class LowOperands:
    """Positions of the operands that are in low precision once a node is lowered."""

    inputs: frozenset[int]
    """Positions of inputs."""

    outputs: frozenset[int]
    """Positions of outputs."""


def network_operands(graph: Graph, node: Node) -> LowOperands:
    """Returns the operands of a layer in a TensorRT network: one type for all values."""
    exact = _FP32_POSITIONS.get(node.op_type, frozenset())
    inputs = frozenset(
        position
        for position, name in enumerate(node.inputs)
        if graph.is_fp32(name) and position not in exact
    )
    states = _state_positions(node)
    outputs = frozenset(
        i for i, name in enumerate(node.outputs) if graph.is_fp32(name) and i not in states
    )
    return LowOperands(inputs, outputs)


def _state_positions(node: Node) -> frozenset[int]:
    """The outputs that are last states: a network carries these in FP32, whatever computes them."""
    if node.domain or node.op_type not in ITERATING:
        return frozenset()
    if node.op_type == "Loop":
        return frozenset(range(len(node.inputs) - 2))
    if node.op_type == "Scan":
        return frozenset(range(len(node.inputs) - int(node.attributes.get("num_scan_inputs", 0))))
    return frozenset({1, 2})


def schema_operands(graph: Graph, node: Node, precision: Precision, opset: int) -> LowOperands:
    """Returns the operands that the ONNX schema allows in `precision`; none if there is none.

    Args:
        graph: The graph.
        node: A node of the graph.
        precision: The low precision.
        opset: The opset whose schema it is.

    Raises:
        KeyError: If ONNX has no such type.
    """
    none = LowOperands(frozenset(), frozenset())
    formals = signature(node.proto, opset)
    if formals is None:
        return none
    low_type = type_string(LOW_TENSOR_TYPES[precision.name])
    if says_output_type(formals):
        allowed = low_type in formals.outputs[0].allowed and graph.is_fp32(node.outputs[0])
        return LowOperands(frozenset(), frozenset({0} if allowed else ()))
    types = {name: graph.element_type(name) for name in (*node.inputs, *node.outputs) if name}
    bound = bound_variables(node.proto, formals, types)
    variables = {
        formal.variable
        for formal in formals.inputs
        if bound.get(formal.variable) == {TensorProto.FLOAT}
        and low_type in formal.allowed
        and (node.op_type, formal.variable) not in FP32_VARIABLES
    }
    if formals.outputs and formals.outputs[0].variable in variables:
        variables |= _free_variables(node, formals, low_type)
    return LowOperands(
        _positions(graph, node.inputs, formals.inputs, variables),
        _positions(graph, node.outputs, formals.outputs, variables),
    )


def says_output_type(formals: Signature) -> bool:
    """Returns whether the first output's type is free, so that no input tells it."""
    if not formals.outputs or len(formals.outputs[0].allowed) == 1:
        return False
    return formals.outputs[0].variable not in {formal.variable for formal in formals.inputs}


def _free_variables(node: Node, formals: Signature, low_type: str) -> set[str]:
    """Variables of outputs whose inputs are all left out: ONNX infers the first output's type."""
    given = {f.variable for name, f in zip(node.inputs, formals.inputs, strict=True) if name}
    made = {f.variable for f in formals.outputs if low_type in f.allowed}
    return made & formals.input_variables - given


def _positions(
    graph: Graph, names: Sequence[str], formals: Sequence[Formal], variables: set[str]
) -> frozenset[int]:
    return frozenset(
        position
        for position, (name, formal) in enumerate(zip(names, formals, strict=True))
        if graph.is_fp32(name) and formal.variable in variables
    )
