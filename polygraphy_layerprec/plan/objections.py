"""Why a node cannot be lowered, for each target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from onnx import TensorProto

from polygraphy_layerprec.model import Role
from polygraphy_layerprec.model.element_types import NOT_A_TENSOR
from polygraphy_layerprec.model.operators import ITERATING
from polygraphy_layerprec.model.schemas import signature, type_string
from polygraphy_layerprec.plan.operands import LOW_TENSOR_TYPES, LowOperands, says_output_type
from polygraphy_layerprec.plan.parser_refusals import (
    NOT_BUILT,
    REFUSED,
    REFUSED_IN_SOME_FORMS,
)
from polygraphy_layerprec.plan.runtime_hazards import crashes_onnxruntime
from polygraphy_layerprec.plan.widths import Target

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.model.schemas import Signature
    from polygraphy_layerprec.precision import Precision

__all__ = ["objection_to"]

_QUANTIZATION: Final = "quantisation stays in FP32"
_NEVER_LOWERED: Final = {
    "CastLike": "its type is that of its second input",
    "DynamicQuantizeLinear": _QUANTIZATION,
    "QLinearConv": _QUANTIZATION,
    "QLinearMatMul": _QUANTIZATION,
    "QuantizeLinear": _QUANTIZATION,
}
_TYPED_BY_ATTRIBUTE: Final = frozenset({"ConstantOfShape", "DequantizeLinear"})
"""Operators whose output type is an attribute's, in some opset at least, that can be lowered by
changing it."""

_REFUSED: Final = REFUSED | NOT_BUILT | REFUSED_IN_SOME_FORMS
"""A model that is saved is to be parsed; which forms are taken differs between versions."""

_BATCHLESS_SCAN: Final = 9
_ACCUMULATIONS: Final = frozenset({"add", "mul"})  # of scatters; ONNX-Runtime has no half kernel


def objection_to(
    graph: Graph,
    node: Node,
    precision: Precision,
    target: Target,
    operands: LowOperands,
    opset: int,
) -> str:
    """Returns why a node with FP32 tensors cannot be lowered, in words; empty where it can.

    Args:
        graph: The graph.
        node: A node of the graph that holds an FP32 tensor.
        precision: The low precision.
        target: Whom the plan is for.
        operands: The operands that would be in low precision.
        opset: The opset whose schemas say what ONNX allows.
    """
    common = _common_objection(node)
    if common:
        return common
    if target is Target.ONNX:
        return _onnx_objection(graph, node, precision, operands, opset)
    return _network_objection(node, precision)


def _common_objection(node: Node) -> str:
    if node.role is Role.SHAPES:
        return "it computes shapes"
    if node.domain:
        return "operators of other domains than ONNX's stay in FP32"
    if node.is_random:
        return "random draws stay in FP32"
    if node.op_type == "Scan" and node.opset < _BATCHLESS_SCAN:
        return "the Scan of this opset iterates over a batch"
    return _NEVER_LOWERED.get(node.op_type, "")


def _network_objection(node: Node, precision: Precision) -> str:
    if (node.op_type, precision.name) in NOT_BUILT:
        return f"TensorRT has no {node.op_type} in {precision.name.upper()}"
    if node.op_type in {"EyeLike", "Range"}:
        return "TensorRT fills in FP32"
    return ""


def _onnx_objection(
    graph: Graph, node: Node, precision: Precision, operands: LowOperands, opset: int
) -> str:
    if any(graph.element_type(n) == NOT_A_TENSOR for n in (*node.inputs, *node.outputs) if n):
        return "it handles values that are not tensors"
    if node.op_type in ITERATING:
        return "in a saved model, its body stays in FP32"
    formals = signature(node.proto, opset)
    if formals is None:
        return "it has no known type constraints"
    objection = _rule_objection(graph, node, formals, precision)
    if objection:
        return objection
    # The first FP32 tensor is the one that the node is about.
    made = [i for i, name in enumerate(node.outputs) if graph.is_fp32(name)]
    read = [i for i, name in enumerate(node.inputs) if graph.is_fp32(name)]
    makes_low = made[:1] == sorted(operands.outputs)[:1]
    if makes_low and (made or read[:1] == sorted(operands.inputs)[:1]):
        is_refused = (node.op_type, precision.name) in _REFUSED
        return f"TensorRT's parser refuses it in {precision.name.upper()}" if is_refused else ""
    low_type = type_string(LOW_TENSOR_TYPES[precision.name])
    return f"{node.op_type}-{formals.since_version} does not take {low_type}"


def _rule_objection(graph: Graph, node: Node, formals: Signature, precision: Precision) -> str:
    if crashes_onnxruntime(graph, node):
        return "ONNX-Runtime crashes on it in low precision"
    if says_output_type(formals) and node.op_type not in _TYPED_BY_ATTRIBUTE:
        return "an attribute says its type"
    if node.attributes.get("reduction") in _ACCUMULATIONS:
        return "it accumulates into scattered places"
    return _scale_objection(graph, node, precision) if node.op_type == "DequantizeLinear" else ""


def _scale_objection(graph: Graph, node: Node, precision: Precision) -> str:
    """A scale is rounded with its node here; a subnormal one would be ruined, not rounded."""
    scale = graph.weights.get(node.inputs[1])
    if scale is None or scale.tensor_type != TensorProto.FLOAT:
        return "its scale is not a constant"
    magnitudes = np.abs(scale.read())
    fits = (magnitudes >= precision.min_normal) & (magnitudes <= precision.max_finite)
    return "" if np.all(fits) else "its scale is out of range"
