"""Bodies of nodes that stay whole: the tensors that they read from outside, and what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polygraphy_layerprec.model.ordering import bodies_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

__all__ = ["rename_captured", "tensors_of"]


def rename_captured(node: NodeProto, names: Mapping[str, str]) -> None:
    """Makes the bodies of a node read other tensors of the graphs around it."""
    for body in bodies_of(node):
        _rename_free(body, names)


def tensors_of(node: NodeProto) -> Iterator[TensorProto]:
    """Yields every tensor that a node's attributes hold, those of its bodies included."""
    for attribute in node.attribute:
        yield from _tensors_of_attribute(attribute)


def _tensors_of_attribute(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    for body in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
        yield from body.initializer
        for node in body.node:
            yield from tensors_of(node)


def _rename_free(graph: GraphProto, names: Mapping[str, str]) -> None:
    local = {value.name for value in graph.input}
    local |= {tensor.name for tensor in graph.initializer}
    local |= {sparse.values.name for sparse in graph.sparse_initializer}
    local |= {name for node in graph.node for name in node.output}
    free = {old: new for old, new in names.items() if old not in local}
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = free.get(name, name)
        rename_captured(node, free)
    for value in graph.output:
        value.name = free.get(value.name, value.name)
