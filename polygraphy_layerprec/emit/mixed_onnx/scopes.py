"""Order and scope: topological sorting, and what the bodies of a node take from outside."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from onnx import GraphProto, NodeProto

__all__ = ["bodies", "captured_names", "defined_names", "rename_captured", "sort_nodes"]


def sort_nodes(nodes: Iterable[NodeProto]) -> list[NodeProto]:
    """Returns the nodes so that producers come first, in the given order wherever that is free.

    Raises:
        ValueError: If the graph has a cycle.
    """
    nodes = list(nodes)
    producers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    missing: list[int] = []
    dependents: list[list[int]] = [[] for _ in nodes]
    for index, node in enumerate(nodes):
        needed = {producers[name] for name in _used_names(node) if name in producers}
        missing.append(len(needed))
        for producer in needed:
            dependents[producer].append(index)
    ready = [index for index, count in enumerate(missing) if count == 0]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(nodes[index])
        for dependent in dependents[index]:
            missing[dependent] -= 1
            if missing[dependent] == 0:
                heapq.heappush(ready, dependent)
    if len(order) < len(nodes):
        raise ValueError("the graph must be acyclic")
    return order


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """Yields the graphs held by a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def captured_names(node: NodeProto) -> frozenset[str]:
    """Returns the tensors that the bodies of a node read from the graphs around it."""
    return frozenset().union(*(_free_names(body) for body in bodies(node)))


def defined_names(graph: GraphProto) -> Iterator[str]:
    """Yields every tensor name that a graph or a body in it defines, with repetitions."""
    yield from _local_names(graph)
    for node in graph.node:
        for body in bodies(node):
            yield from defined_names(body)


def rename_captured(node: NodeProto, names: Mapping[str, str]) -> None:
    """Makes the bodies of a node read other tensors of the graphs around it."""
    for body in bodies(node):
        _rename_free(body, names)


def _used_names(node: NodeProto) -> frozenset[str]:
    return captured_names(node).union(name for name in node.input if name)


def _free_names(graph: GraphProto) -> frozenset[str]:
    used = frozenset(value.name for value in graph.output)
    return used.union(*(_used_names(node) for node in graph.node)) - set(_local_names(graph))


def _local_names(graph: GraphProto) -> Iterator[str]:
    yield from (value.name for value in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        yield from (name for name in node.output if name)


def _rename_free(graph: GraphProto, names: Mapping[str, str]) -> None:
    local = set(_local_names(graph))
    free = {old: new for old, new in names.items() if old not in local}
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = free.get(name, name)
        rename_captured(node, free)
    for value in graph.output:
        value.name = free.get(value.name, value.name)
