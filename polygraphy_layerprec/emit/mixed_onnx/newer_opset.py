"""A model in a newer opset, where its own has no low precision for what it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from onnx import AttributeProto, version_converter
from onnx.shape_inference import InferenceError

from polygraphy_layerprec.model import Graph, ModelError
from polygraphy_layerprec.model.graph import build_graph
from polygraphy_layerprec.plan import Planner, Target, Verdict

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

    from polygraphy_layerprec.precision import Precision

__all__ = ["OLDEST_OPSETS", "in_newer_opset"]

OLDEST_OPSETS: Final = {"fp16": 7, "bf16": 13}
"""Before these, casts to the precision, or operators in it, are not what they are today."""

_RAISED_TO: Final = {"fp16": 12, "bf16": 22}
"""The precision is in the schemas wherever FP32 is: from 22 on, and for FP16 all along."""
_IR_VERSIONS: Final = {12: 7, 22: 10}
_OVERRIDABLE_WEIGHTS: Final = 4
"""From this version of the format on, a user may feed what is an input and a weight; before it,
every weight had to be an input."""
_SUBGRAPHS: Final = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


def in_newer_opset(graph: Graph, precision: Precision) -> Graph | None:
    """Returns the same model in the opset that has `precision`; None where nothing is gained.

    Nor where onnx's converter cannot do it, or where a layer does not survive it under its name. It
    passes over local functions and the bodies of nodes, so that a model with either stays as it is.

    Args:
        graph: The model.
        precision: The low precision.
    """
    version = _RAISED_TO[precision.name]
    if graph.opset() >= version or not _is_flat(graph.proto):
        return None
    too_old = graph.opset() < OLDEST_OPSETS[precision.name]
    if not too_old and not _gains(graph, precision, version):
        return None
    try:
        converted = version_converter.convert_version(graph.proto, version)
        if graph.ir_version < _OVERRIDABLE_WEIGHTS:
            _undeclare_weights(converted.graph)
        converted.ir_version = max(graph.ir_version, _IR_VERSIONS[version])
        newer = build_graph(converted, name=graph.name, folder=graph.folder)
    # What its C++ throws has no common type; the model in its own opset is right as well.
    except (ModelError, RuntimeError, ValueError, TypeError, InferenceError):
        return None
    return newer if _survives(graph, newer) else None


def _is_flat(model: ModelProto) -> bool:
    return not model.functions and not any(
        attribute.type in _SUBGRAPHS for node in model.graph.node for attribute in node.attribute
    )


def _undeclare_weights(graph: GraphProto) -> None:
    weights = {tensor.name for tensor in graph.initializer}
    fed = [value for value in graph.input if value.name not in weights]
    del graph.input[:]
    graph.input.extend(fed)


def _gains(graph: Graph, precision: Precision, version: int) -> bool:
    if precision.name == "fp16":  # has had it for long; another opset is another model
        return False
    newer = _lowered_count(graph, precision, version)
    return newer > _lowered_count(graph, precision, None)


def _lowered_count(graph: Graph, precision: Precision, schema_opset: int | None) -> int:
    plan = Planner(graph, precision, Target.ONNX, schema_opset=schema_opset).plan()
    return sum(taken.verdict is Verdict.LOWERED for taken in plan.nodes)


def _survives(graph: Graph, newer: Graph) -> bool:
    made = _nodes(newer.proto.graph)
    same_ends = (graph.outputs, graph.inputs) == (newer.outputs, newer.inputs)
    return same_ends and _nodes(graph.proto.graph) <= made


def _nodes(graph: GraphProto) -> set[tuple[str, str, tuple[str, ...]]]:
    return {(node.name, node.op_type, tuple(node.output)) for node in graph.node}
