"""Reads back which layers of a model stay in FP32 in a mixed-precision form of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import onnx
from google.protobuf.message import DecodeError
from onnx import NodeProto, TensorProto, inliner

from polygraphy_layerprec.emit.mixed_onnx.detached import iterate_tensors
from polygraphy_layerprec.emit.mixed_onnx.graph_view import GraphView, view_graph
from polygraphy_layerprec.emit.mixed_onnx.runtime_hazards import crashes_onnxruntime
from polygraphy_layerprec.emit.mixed_onnx.weights import is_external
from polygraphy_layerprec.model import ModelError, Node, Role
from polygraphy_layerprec.model.errors import told_damage
from polygraphy_layerprec.model.external_data import data_folder_of
from polygraphy_layerprec.model.weights import locate_weight
from polygraphy_layerprec.model.wire_format import read_skeleton
from polygraphy_layerprec.records import Constraint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from polygraphy_layerprec.model import Graph

__all__ = ["MixedLayers", "read_mixed_onnx"]

_LOW_TYPES: Final[dict[int, str]] = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
_FLOAT_TYPES: Final[frozenset[int]] = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE})
_INLINE_BYTES: Final = 4096  # larger weights say nothing about types


@dataclass(frozen=True, slots=True)
class MixedLayers:
    """What a mixed-precision model says about the layers of the model it was made from."""

    kept: tuple[Constraint, ...]
    """The layers that compute in FP32, in execution order."""

    lowered_count: int
    """Layers that compute in low precision."""

    precisions: tuple[str, ...]
    """Names of the low precisions among them, sorted: `bf16`, `fp16`."""

    missing: tuple[Constraint, ...]
    """Layers that the mixed model does not have, or whose type it does not tell."""

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
        OSError: If it cannot be read.
    """
    view = _view(os.fspath(path))
    by_name = _unique_by_name(view.nodes)
    kept, missing, low_types, lowered_count = [], [], set(), 0
    for node in graph.nodes:
        if node.role is not Role.COMPUTES:
            continue
        counterpart = _counterpart(node, view, by_name)
        types = None if counterpart is None else _deciding_types(counterpart, view)
        constraint = Constraint(
            node.proto.name, node.op_type, node.inputs, node.outputs, "FP32 in the mixed model"
        )
        if types is None:
            missing.append(constraint)
        elif types & _LOW_TYPES.keys():
            lowered_count += 1
            low_types |= types & _LOW_TYPES.keys()
        else:
            kept.append(constraint)
    return MixedLayers(
        kept=tuple(kept),
        lowered_count=lowered_count,
        precisions=tuple(sorted(_LOW_TYPES[tensor_type] for tensor_type in low_types)),
        missing=tuple(missing),
        fatal=tuple(node.name for node in view.nodes if _is_fatal(node, view)),
    )


def _is_fatal(node: NodeProto, view: GraphView) -> bool:
    is_low = view.types.get(node.output[0]) in _LOW_TYPES if node.output else False
    return is_low and crashes_onnxruntime(view, node)


def _view(path: str) -> GraphView:
    try:
        model = onnx.ModelProto.FromString(read_skeleton(path, inline_bytes=_INLINE_BYTES))
    except DecodeError as error:
        raise ModelError(f"{path!r} is not an ONNX model: {error}.") from error
    if not model.HasField("graph") or not model.graph.node:
        raise ModelError(f"{path!r} is not an ONNX model with a graph.")
    folder = data_folder_of(path, None)
    with told_damage(path):
        for tensor in filter(is_external, iterate_tensors(model)):
            locate_weight(tensor, tensor.name, folder)  # ONNX-Runtime will read it
        if model.functions:
            model = inliner.inline_local_functions(model)
        return view_graph(model)


def _unique_by_name(nodes: Iterable[NodeProto]) -> dict[tuple[str, str], NodeProto | None]:
    found: dict[tuple[str, str], NodeProto | None] = {}
    for node in nodes:
        key = (node.name, node.op_type)
        found[key] = None if key in found else node
    return found


def _counterpart(
    node: Node, view: GraphView, by_name: dict[tuple[str, str], NodeProto | None]
) -> NodeProto | None:
    if node.proto.name:
        named = by_name.get((node.proto.name, node.op_type))
        if named is not None:
            return named
    for name in filter(None, node.outputs):
        index = view.producers.get(name)
        while index is not None and view.nodes[index].op_type == "Cast":
            index = view.producers.get(view.nodes[index].input[0])
        if index is not None and view.nodes[index].op_type == node.op_type:
            return view.nodes[index]
    return None


def _deciding_types(node: NodeProto, view: GraphView) -> set[int] | None:
    """The float types of what a node makes, or else, as ArgMax makes integers, of what it reads."""
    for names in (node.output, node.input):
        types = set(_known_types(names, view)) & (_LOW_TYPES.keys() | _FLOAT_TYPES)
        if types:
            return types
    known = all(name in view.types for name in node.output if name)
    return set() if known else None


def _known_types(names: Iterable[str], view: GraphView) -> Iterator[int]:
    return (view.types[name] for name in names if name in view.types)
