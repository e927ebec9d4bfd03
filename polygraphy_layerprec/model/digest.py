"""Which model a file is about, in a number that does not depend on where its weights lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from onnx import AttributeProto, GraphProto, NodeProto, SparseTensorProto, TensorProto

from polygraphy_layerprec.model.external_data import DataFolder
from polygraphy_layerprec.model.graph import Graph
from polygraphy_layerprec.model.quantized.records import QuantizedGraph
from polygraphy_layerprec.model.weights import locate_weight
from polygraphy_layerprec.records import ModelIdentity

__all__ = ["identify", "reference_digest"]

_VERSION: Final = "2"
_END_BYTES: Final = 2048


def identify(graph: Graph) -> ModelIdentity:
    """Returns which model this is.

    The digest covers operators with their versions and attributes, tensor names, inputs, outputs,
    and of each weight its type, shape, first and last values: reading every weight would cost as
    much as the ranking. Names of nodes and texts for the reader are no part of it. Its version
    stands before the colon; digests of another version say nothing about this one. The float graph
    of a quantised model is known as that model.
    """
    if isinstance(graph, QuantizedGraph):
        return replace(identify(graph.quantized), layer_count=len(graph.decisions))
    digest = hashlib.sha256()
    for node in graph.nodes:
        guards = [(guard.condition, guard.value) for guard in node.guards]
        place = (node.domain, node.op_type, node.opset, node.inputs, node.outputs)
        _add(digest, "node", *place, node.branches, guards)
        if not node.branches:  # those of an `If` are nodes of the graph
            for part in _attributes(node.proto, graph.folder):
                _add(digest, part)
    for name, weight in sorted(graph.weights.items()):
        _add(digest, "weight", name, weight.tensor_type, weight.shape)
        _add(digest, weight.read_ends(_END_BYTES))
    for value in graph.inputs:
        _add(digest, "input", value.name, value.dtype.name, value.shape)
    _add(digest, "outputs", graph.outputs)
    return ModelIdentity(
        graph.name,
        f"{_VERSION}:{digest.hexdigest()}",
        len(graph.nodes),
        graph.opset(),
        len(graph.layers),
    )


def reference_digest(graph: Graph) -> str:
    """Returns the digest of the float model that a quantised one is compared with, else nothing."""
    if not isinstance(graph, QuantizedGraph) or graph.reference is None:
        return ""
    return identify(graph.reference).digest


def _add(digest: Any, *parts: object) -> None:
    # Plain values alone, whose text is the same in every version of this package and of Python.
    digest.update(repr(parts).encode())


def _attributes(proto: NodeProto, folder: DataFolder) -> Iterator[object]:
    for attribute in sorted(proto.attribute, key=lambda a: str(a.name)):
        yield attribute.name, attribute.type
        if attribute.HasField("t"):
            yield _tensor(attribute.t, folder)
        elif attribute.HasField("g") or attribute.graphs:
            for body in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _body(body, folder)
        else:
            plain = AttributeProto()
            plain.CopyFrom(attribute)
            plain.doc_string = ""
            yield plain.SerializeToString(deterministic=True)


def _body(body: GraphProto, folder: DataFolder) -> Iterator[object]:
    yield [value.name for value in body.input], [value.name for value in body.output]
    for tensor in (*body.initializer, *body.sparse_initializer):
        yield _tensor(tensor, folder)
    for node in body.node:
        yield node.domain, node.op_type, tuple(node.input), tuple(node.output)
        yield from _attributes(node, folder)


def _tensor(tensor: TensorProto | SparseTensorProto, folder: DataFolder) -> object:
    name = tensor.name if isinstance(tensor, TensorProto) else tensor.values.name
    weight = locate_weight(tensor, name, folder)
    return weight.name, weight.tensor_type, weight.shape, weight.read_ends(_END_BYTES)
