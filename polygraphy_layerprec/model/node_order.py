"""The order in which nodes can run, and what their subgraphs take from around them."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from polygraphy_layerprec.model.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from onnx import GraphProto, NodeProto

__all__ = ["captured_names", "sort_nodes"]


def sort_nodes(
    protos: Sequence[NodeProto], known: Collection[str]
) -> list[tuple[NodeProto, tuple[str, ...]]]:
    """Returns the nodes with their captured tensors, each after what it reads.

    Where that leaves a choice, the order of the file holds.

    Args:
        protos: The nodes of a graph.
        known: Tensors that no node makes: inputs and constants.

    Raises:
        ModelError: If a tensor has no producer or two, or there is a cycle.
    """
    producers = _producers(protos, known)
    captures = [tuple(sorted(captured_names(proto))) for proto in protos]
    waiting: list[int] = []
    dependents: dict[int, list[int]] = {}
    for index, (proto, captured) in enumerate(zip(protos, captures, strict=True)):
        needs = _needs(proto, captured, producers, known)
        waiting.append(len(needs))
        for need in needs:
            dependents.setdefault(need, []).append(index)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    ordered = []
    while ready:
        index = heapq.heappop(ready)
        ordered.append((protos[index], captures[index]))
        for dependent in dependents.get(index, []):
            waiting[dependent] -= 1
            if waiting[dependent] == 0:
                heapq.heappush(ready, dependent)
    if len(ordered) < len(protos):
        raise ModelError("The graph of the model has a cycle, so nothing can be run.")
    return ordered


def captured_names(proto: NodeProto) -> set[str]:
    """Returns the tensors that the subgraphs of a node take from the graph around it."""
    captured: set[str] = set()
    for attribute in proto.attribute:
        for graph in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
            captured |= _free_names(graph)
    return captured


def _free_names(graph: GraphProto) -> set[str]:
    bound = {value.name for value in graph.input} | {t.name for t in graph.initializer}
    bound |= {name for node in graph.node for name in node.output}
    free = {name for node in graph.node for name in (*node.input, *captured_names(node)) if name}
    # A body may hand an outer tensor straight to its output.
    free |= {value.name for value in graph.output}
    return free - bound


def _producers(protos: Sequence[NodeProto], known: Collection[str]) -> dict[str, int]:
    """The position of the node that makes a tensor."""
    producers: dict[str, int] = {}
    for index, proto in enumerate(protos):
        for name in filter(None, proto.output):
            if name in producers or name in known:
                raise ModelError(
                    f"Two nodes write the tensor {name!r}, or a node overwrites an input.\n"
                    f"Note: One is a {proto.op_type} named {proto.name!r}. "
                    f"Export the model again: every tensor has one producer."
                )
            producers[name] = index
    return producers


def _needs(
    proto: NodeProto,
    captured: Sequence[str],
    producers: dict[str, int],
    known: Collection[str],
) -> set[int]:
    """The positions of the nodes that must run before."""
    sources = {name for name in (*proto.input, *captured) if name and name not in known}
    for name in sorted(sources - producers.keys()):
        raise ModelError(
            f"Nothing makes the tensor {name!r} that the {proto.op_type} node "
            f"{proto.name!r} reads.\nThe model is incomplete: export it again."
        )
    return {producers[name] for name in sources}
