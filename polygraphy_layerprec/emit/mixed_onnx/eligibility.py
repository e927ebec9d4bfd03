"""Whether a node can be lowered at all, by the type constraints of its operator and by rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, TensorProto

from polygraphy_layerprec.emit.mixed_onnx.graph_view import NOT_A_TENSOR
from polygraphy_layerprec.emit.mixed_onnx.operators import (
    FP32_OPERATORS,
    FP32_VARIABLES,
    TYPED_BY_ATTRIBUTE,
)
from polygraphy_layerprec.emit.mixed_onnx.plan import Verdict
from polygraphy_layerprec.emit.mixed_onnx.runtime_hazards import crashes_onnxruntime
from polygraphy_layerprec.emit.mixed_onnx.schema_types import (
    DEFAULT_DOMAINS,
    Signature,
    bound_variables,
    signature,
    type_string,
)
from polygraphy_layerprec.emit.mixed_onnx.scopes import bodies
from polygraphy_layerprec.emit.mixed_onnx.weights import low_tensor_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from polygraphy_layerprec.emit.mixed_onnx.detached import TensorStore
    from polygraphy_layerprec.emit.mixed_onnx.graph_view import GraphView
    from polygraphy_layerprec.emit.mixed_onnx.schema_types import Formal
    from polygraphy_layerprec.precision import Precision

__all__ = ["Eligibility", "judge_node"]

_ACCUMULATIONS = (b"add", b"mul")  # of scatters; ONNX-Runtime has no half kernel for them


@dataclass(frozen=True, slots=True)
class Eligibility:
    """What may become of a node, whatever its neighbours are."""

    verdict: Verdict
    """The verdict, `LOWERED` where it is possible."""

    reason: str = ""
    """Why it is left in FP32, empty otherwise."""

    low_inputs: frozenset[int] = frozenset()
    """Positions of the inputs that change their type when the node is lowered."""

    low_outputs: frozenset[int] = frozenset()
    """Positions of the outputs that change their type when the node is lowered."""


def judge_node(
    view: GraphView, node: NodeProto, precision: Precision, store: TensorStore
) -> Eligibility:
    """Returns whether a node with float tensors can be lowered, and which of them then are.

    Args:
        view: The graph.
        node: A node of the graph that holds a float tensor.
        precision: The low precision.
        store: Where the values of weights are.
    """
    if any(True for _ in bodies(node)):
        return Eligibility(Verdict.LEFT, "its bodies stay in FP32")
    formals = signature(node, view.opsets)
    if formals is None:
        return Eligibility(Verdict.LEFT, "it has no known type constraints")
    objection = _objection(view, node, formals, precision=precision, store=store)
    if objection:
        return Eligibility(Verdict.LEFT, objection)
    low_type = type_string(low_tensor_type(precision))
    low_inputs, low_outputs = _low_positions(view, node, formals, low_type)
    # The first float tensor is the one that the node is about.
    made = [position for position, name in enumerate(node.output) if view.is_float(name)]
    read = [position for position, name in enumerate(node.input) if view.is_float(name)]
    if made[:1] == sorted(low_outputs)[:1] and (made or read[:1] == sorted(low_inputs)[:1]):
        return Eligibility(Verdict.LOWERED, "", low_inputs, low_outputs)
    operator = f"{node.op_type}-{formals.since_version}"
    return Eligibility(Verdict.LEFT, f"{operator} does not take {low_type}")


def _objection(
    view: GraphView,
    node: NodeProto,
    formals: Signature,
    *,
    precision: Precision,
    store: TensorStore,
) -> str:
    if any(view.types.get(name) == NOT_A_TENSOR for name in (*node.input, *node.output)):
        return "it handles values that are not tensors"
    if node.domain in DEFAULT_DOMAINS and node.op_type in FP32_OPERATORS:
        return FP32_OPERATORS[node.op_type]
    if crashes_onnxruntime(view, node):
        return "ONNX-Runtime crashes on it in low precision"
    if _says_output_type(node, formals):
        return "" if node.op_type in TYPED_BY_ATTRIBUTE else "an attribute says its type"
    if any(a.name == "reduction" and a.s in _ACCUMULATIONS for a in node.attribute):
        return "it accumulates into scattered places"
    dequantizes = node.op_type == "DequantizeLinear"
    return _scale_objection(view, node, precision, store) if dequantizes else ""


def _says_output_type(node: NodeProto, formals: Signature) -> bool:
    """Returns whether the first output's type is free, so that no input tells it."""
    if not node.output or len(formals.outputs[0].allowed) == 1:
        return False
    return formals.outputs[0].variable not in {formal.variable for formal in formals.inputs}


def _scale_objection(
    view: GraphView, node: NodeProto, precision: Precision, store: TensorStore
) -> str:
    """A scale is rounded with its node here; a subnormal one would be ruined, not rounded."""
    scale = view.constants.get(node.input[1])
    if scale is None or scale.data_type != TensorProto.FLOAT:
        return "its scale is not a constant"
    magnitudes = np.abs(store.values(scale))
    fits = (magnitudes >= precision.min_normal) & (magnitudes <= precision.max_finite)
    return "" if np.all(fits) else "its scale is out of range"


def _low_positions(
    view: GraphView, node: NodeProto, formals: Signature, low_type: str
) -> tuple[frozenset[int], frozenset[int]]:
    if _says_output_type(node, formals):
        allowed = low_type in formals.outputs[0].allowed and view.is_float(node.output[0])
        return frozenset(), frozenset({0} if allowed else ())
    bound = bound_variables(node, formals, view.types)
    variables = {
        formal.variable
        for formal in formals.inputs
        if bound.get(formal.variable) == {TensorProto.FLOAT}
        and low_type in formal.allowed
        and (node.op_type, formal.variable) not in FP32_VARIABLES
    }
    low_inputs = _positions(view, node.input, formals.inputs, variables)
    return low_inputs, _positions(view, node.output, formals.outputs, variables)


def _positions(
    view: GraphView, names: Iterable[str], formals: Sequence[Formal], variables: set[str]
) -> frozenset[int]:
    return frozenset(
        position
        for position, (name, formal) in enumerate(zip(names, formals, strict=True))
        if view.is_float(name) and formal.variable in variables
    )
