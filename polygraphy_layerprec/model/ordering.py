"""The order in which nodes can run, and what their subgraphs take from around them."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from polygraphy_layerprec.model.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from onnx import GraphProto, NodeProto

    from polygraphy_layerprec.model.expansion import PlacedNode

__all__ = ["bodies_of", "captured_names", "sort_nodes", "two_producers"]


def sort_nodes(nodes: Sequence[PlacedNode], known: Collection[str]) -> list[PlacedNode]:
    """Returns the nodes, each after what it reads and after what decides whether it runs.

    Where that leaves a choice, the given order holds.

    Args:
        nodes: The nodes of a graph.
        known: Tensors that no node makes: inputs and constants.

    Raises:
        ModelError: If a tensor has no producer or two, or there is a cycle.
    """
    producers = _producers(nodes, known)
    waiting: list[int] = []
    dependents: dict[int, list[int]] = {}
    for index, node in enumerate(nodes):
        needs = _needs(node, nodes, producers, known)
        waiting.append(len(needs))
        for need in needs:
            dependents.setdefault(need, []).append(index)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    ordered = []
    while ready:
        index = heapq.heappop(ready)
        ordered.append(nodes[index])
        for dependent in dependents.get(index, []):
            waiting[dependent] -= 1
            if waiting[dependent] == 0:
                heapq.heappush(ready, dependent)
    if len(ordered) < len(nodes):
        raise ModelError("The graph of the model has a cycle, so nothing can be run.")
    return ordered


def captured_names(proto: NodeProto) -> set[str]:
    """Returns the tensors that the bodies of a node take from the graph around it."""
    captured: set[str] = set()
    for body in bodies_of(proto):
        captured |= _free_names(body)
    return captured


def two_producers(name: str, proto: NodeProto) -> ModelError:
    """Returns the error that a node writes a tensor that something else gives already."""
    return ModelError(
        f"Two nodes write the tensor {name!r}, or a node overwrites an input.\n"
        f"Note: One is a {proto.op_type} named {proto.name!r}. "
        f"Export the model again: every tensor has one producer."
    )


def bodies_of(proto: NodeProto) -> Iterator[GraphProto]:
    """Yields the graphs that a node's attributes hold."""
    for attribute in proto.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _free_names(graph: GraphProto) -> set[str]:
    bound = {value.name for value in graph.input} | {t.name for t in graph.initializer}
    bound |= {sparse.values.name for sparse in graph.sparse_initializer}
    bound |= {name for node in graph.node for name in node.output}
    free = {name for node in graph.node for name in (*node.input, *captured_names(node)) if name}
    # A body may hand an outer tensor straight to its output.
    free |= {value.name for value in graph.output}
    return free - bound


def _producers(nodes: Sequence[PlacedNode], known: Collection[str]) -> dict[str, int]:
    """The position of the node that makes a tensor."""
    producers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in filter(None, node.proto.output):
            if name in producers or name in known:
                raise two_producers(name, node.proto)
            producers[name] = index
    return producers


def _needs(
    node: PlacedNode,
    nodes: Sequence[PlacedNode],
    producers: dict[str, int],
    known: Collection[str],
) -> set[int]:
    """The positions of the nodes that must run before."""
    needs = set()
    for name in node.sources:
        if name in producers and _is_visible(nodes[producers[name]], node, name):
            needs.add(producers[name])
        elif name not in known:
            raise ModelError(
                f"Nothing makes the tensor {name!r} that the {node.proto.op_type} node "
                f"{node.proto.name!r} reads.\nThe model is incomplete: export it again."
            )
    return needs


def _is_visible(producer: PlacedNode, reader: PlacedNode, name: str) -> bool:
    """Whether a tensor is made around the reader, or in a branch of it as its result."""
    around = producer.guards
    if any(name in results for results in reader.branches) and len(around) > len(reader.guards):
        around = around[:-1]
    return around == reader.guards[: len(around)]
