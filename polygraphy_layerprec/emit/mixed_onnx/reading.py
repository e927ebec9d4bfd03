"""Reads back which layers of a model stay in FP32 in a mixed-precision form of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from onnx import TensorProto

from polygraphy_layerprec.emit.mixed_onnx.header import PRECISION_KEY
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.model.element_types import UNKNOWN_TYPE
from polygraphy_layerprec.plan import Planner, Target
from polygraphy_layerprec.plan.runtime_hazards import crashes_onnxruntime
from polygraphy_layerprec.precision import PRECISIONS
from polygraphy_layerprec.records import Constraint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from polygraphy_layerprec.model import Graph, Node

__all__ = ["MixedLayers", "read_mixed_onnx"]

_LOW_TYPES: Final[dict[int, str]] = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
_FLOAT_TYPES: Final[frozenset[int]] = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE})


@dataclass(frozen=True, slots=True)
class MixedLayers:
    """What a mixed-precision model says about the layers of the model it was made from."""

    kept: tuple[Constraint, ...]
    """The layers that compute in FP32, in execution order, though they could be lowered."""

    lowered_count: int
    """Layers that compute in low precision."""

    precisions: tuple[str, ...]
    """Names of the low precisions among them, sorted: `bf16`, `fp16`; what the model says of itself
    where no layer has one."""

    missing: tuple[Constraint, ...]
    """Layers that the mixed model does not have, or whose type it does not tell."""

    opset: int
    """Its opset."""

    fatal: tuple[str, ...]
    """Names of nodes that ONNX-Runtime would crash on, in graph order."""


def read_mixed_onnx(path: str | os.PathLike[str], graph: Graph) -> MixedLayers:
    """Returns which layers of `graph` are in FP32 in the mixed-precision model at `path`.

    Layers are found by node name and operator, or by the tensor they make, seen through casts.

    Args:
        path: An `.onnx` file; its weights are not read.
        graph: The FP32 model.

    Raises:
        ModelError: If the file is no ONNX model.
    """
    mixed = load_graph(path)
    by_name = _unique_by_name(mixed.nodes)
    found = [(node, _types_in(node, mixed, by_name)) for node in graph.layers]
    low = {t for _, types in found for t in types or () if t in _LOW_TYPES}
    precisions = tuple(sorted(_LOW_TYPES[tensor_type] for tensor_type in low)) or _said(mixed)
    left = _left_anyway(graph, precisions, mixed.opset())
    in_fp32 = [node for node, types in found if types is not None and not types & _LOW_TYPES.keys()]
    return MixedLayers(
        kept=tuple(_constraint(node) for node in in_fp32 if node.index not in left),
        lowered_count=sum(bool(types and types & _LOW_TYPES.keys()) for _, types in found),
        precisions=precisions,
        missing=tuple(_constraint(node) for node, types in found if types is None),
        opset=mixed.opset(),
        fatal=tuple(node.name for node in mixed.nodes if _is_fatal(node, mixed)),
    )


def _said(mixed: Graph) -> tuple[str, ...]:
    entries = {entry.key: entry.value for entry in mixed.proto.metadata_props}
    said = entries.get(PRECISION_KEY, "")
    return (said,) if said in _LOW_TYPES.values() else ()


def _left_anyway(graph: Graph, precisions: tuple[str, ...], opset: int) -> set[int]:
    precision = PRECISIONS[precisions[0] if precisions else "fp16"]
    plan = Planner(graph, precision, Target.ONNX, schema_opset=opset).plan()
    return {node.index for node in graph.layers if not plan.is_lowered(node)}


def _constraint(node: Node) -> Constraint:
    return Constraint(
        node.proto.name, node.op_type, node.inputs, node.outputs, "FP32 in the mixed model"
    )


def _is_fatal(node: Node, mixed: Graph) -> bool:
    is_low = bool(node.outputs) and mixed.element_type(node.outputs[0]) in _LOW_TYPES
    return is_low and crashes_onnxruntime(mixed, node)


def _unique_by_name(nodes: Iterable[Node]) -> dict[tuple[str, str], Node | None]:
    found: dict[tuple[str, str], Node | None] = {}
    for node in nodes:
        key = (node.proto.name, node.op_type)
        found[key] = None if key in found else node
    return found


def _types_in(
    node: Node, mixed: Graph, by_name: dict[tuple[str, str], Node | None]
) -> set[int] | None:
    """The types that a layer has in the mixed model; None if it is not there, or they are open."""
    counterpart = _counterpart(node, mixed, by_name)
    return None if counterpart is None else _deciding_types(counterpart, mixed)


def _counterpart(
    node: Node, mixed: Graph, by_name: dict[tuple[str, str], Node | None]
) -> Node | None:
    for name in filter(None, (node.name if node.path else node.proto.name, node.proto.name)):
        named = by_name.get((name, node.op_type))
        if named is not None:
            return named
    for name in filter(None, node.outputs):
        found = mixed.producers.get(name)
        while found is not None and found.op_type == "Cast":
            found = mixed.producers.get(found.inputs[0])
        if found is not None and found.op_type == node.op_type:
            return found
    return None


def _deciding_types(node: Node, mixed: Graph) -> set[int] | None:
    """The float types of what a node makes, or else, as ArgMax makes integers, of what it reads."""
    for names in (node.outputs, node.inputs):
        types = {mixed.element_type(name) for name in names if name}
        if types & (_LOW_TYPES.keys() | _FLOAT_TYPES):
            return types & (_LOW_TYPES.keys() | _FLOAT_TYPES)
    known = all(mixed.element_type(name) != UNKNOWN_TYPE for name in node.outputs if name)
    return set() if known else None
