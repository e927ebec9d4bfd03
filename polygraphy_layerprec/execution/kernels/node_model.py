"""A model of one node, told as much about what it takes as it needs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper

from polygraphy_layerprec.arrays import on_host
from polygraphy_layerprec.execution.kernels.ort_tensors import value_of
from polygraphy_layerprec.model import Graph, Node, Role
from polygraphy_layerprec.model.element_types import type_of_runtime_name
from polygraphy_layerprec.model.external_data import DataFolder
from polygraphy_layerprec.model.weights import locate_weight

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = [
    "Detail",
    "InputDescription",
    "describe_inputs",
    "neutral_node",
    "node_model",
    "session_names",
]

_NEWEST_IR_VERSION: Final = 9  # ONNX-Runtime 1.17 reads no newer one, and a node needs none
_LARGEST_EMBEDDED_BYTES: Final = 64 << 20


class Detail(IntEnum):
    """What a session knows beforehand of the values that its node takes.

    The less it knows, the more runs can share it. An operator without a kernel is replaced by its
    function, which may depend on ranks and extents; a Scan wants the rank of what its body makes.
    """

    TYPES = 0
    """Types alone: enough for nearly all."""

    RANKS = 1
    """How many axes as well."""

    SHAPES = 2
    """Every extent as well."""

    CONSTANTS = 3
    """The values of constants as well, which are then no inputs any more."""


class InputDescription(NamedTuple):
    """What a session knows of one of its inputs."""

    type_name: str
    """Type as ONNX-Runtime calls it, say, `seq(tensor(float))`."""

    shape: tuple[int | None, ...] | None = None
    """Extents as far as they are known; None when not even the rank is."""

    constant: bytes | None = None
    """A serialized tensor, where the value is known."""


def describe_inputs(
    graph: Graph, node: Node, feeds: Mapping[str, ort.OrtValue], detail: Detail
) -> dict[str, InputDescription]:
    """Returns what a session of `node` is to know of its sources, by their names in the session."""
    inputs = {}
    for new, name in session_names(node):
        inputs[new] = known = _describe(feeds[name], detail)
        if detail is Detail.CONSTANTS and known.shape is not None and _is_constant(graph, name):
            inputs[new] = known._replace(constant=_serialized(feeds[name]))
    return inputs


def _describe(tensor: ort.OrtValue, detail: Detail) -> InputDescription:
    type_name = tensor.data_type()
    if detail is Detail.TYPES or not type_name.startswith("tensor"):
        return InputDescription(type_name)
    shape = tuple(tensor.shape())
    return InputDescription(type_name, (None,) * len(shape) if detail is Detail.RANKS else shape)


def _serialized(tensor: ort.OrtValue) -> bytes | None:
    values = on_host(value_of(tensor))
    if values.nbytes > _LARGEST_EMBEDDED_BYTES:
        return None
    return bytes(onnx.numpy_helper.from_array(values).SerializeToString())


def _is_constant(graph: Graph, name: str) -> bool:
    producer = graph.producers.get(name)
    return name in graph.weights or (producer is not None and producer.role is Role.FOLDED)


def session_names(node: Node) -> list[tuple[str, str]]:
    """Returns pairs of a name in the session and the tensor it stands for; captures keep theirs."""
    pairs: dict[str, str] = {}
    for index, name in enumerate(node.inputs):
        if name and name not in node.captures:
            pairs.setdefault(name, f"i{index}")
    pairs.update({name: name for name in node.captures})
    return [(new, name) for name, new in pairs.items()]


def neutral_node(node: Node) -> NodeProto:
    """Returns the node with neutral names, so that nodes of one structure look alike."""
    body = NodeProto()
    body.CopyFrom(node.proto)
    body.name = ""
    body.doc_string = ""
    new_names = {name: new for new, name in session_names(node) if name not in node.captures}
    body.input[:] = [new_names.get(name, name) for name in body.input]
    body.output[:] = [f"o{i}" if name else "" for i, name in enumerate(body.output)]
    return body


def node_model(
    graph: Graph, node: Node, body: NodeProto, inputs: Mapping[str, InputDescription]
) -> onnx.ModelProto:
    """Returns a model of a node alone.

    Args:
        graph: The model that it is from.
        node: The node as the graph has it.
        body: The node with neutral names; constants of its subgraphs are brought into it.
        inputs: What is known of each of its sources, by name in the session.
    """
    for attribute in body.attribute:
        _embed_weights(attribute, graph.folder)
    made = helper.make_graph(
        [body],
        "node",
        [
            onnx.ValueInfoProto(name=name, type=type_of_runtime_name(known.type_name, known.shape))
            for name, known in inputs.items()
            if not known.constant
        ],
        [onnx.ValueInfoProto(name=name) for name in body.output if name],
        [_named(known.constant, name) for name, known in inputs.items() if known.constant],
    )
    versions = {**graph.opsets, node.domain: node.opset}
    opsets = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    ir_version = min(graph.ir_version, _NEWEST_IR_VERSION)
    return helper.make_model(made, opset_imports=opsets, ir_version=ir_version)


def _named(constant: bytes, name: str) -> TensorProto:
    tensor: TensorProto = TensorProto.FromString(constant)
    tensor.name = name
    return tensor


def _embed_weights(attribute: AttributeProto, folder: DataFolder) -> None:
    """Brings the large constants of a subgraph into it: a session cannot take them as inputs."""
    for graph in (attribute.g, *attribute.graphs):
        _embed_graph(graph, folder)
    if attribute.HasField("t"):
        _embed_tensor(attribute.t, folder)


def _embed_graph(graph: GraphProto, folder: DataFolder) -> None:
    for tensor in graph.initializer:
        _embed_tensor(tensor, folder)
    for node in graph.node:
        for attribute in node.attribute:
            _embed_weights(attribute, folder)


def _embed_tensor(tensor: TensorProto, folder: DataFolder) -> None:
    if tensor.data_location == TensorProto.EXTERNAL:
        values = locate_weight(tensor, tensor.name, folder).read()
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
