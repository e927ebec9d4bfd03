"""Tensors within functions as files of earlier versions call them."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING

import onnx.inliner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnx import NodeProto

    from polygraphy_layerprec.model.graph import Graph

__all__ = ["earlier_names"]


def earlier_names(graph: Graph) -> dict[str, str]:
    """Returns the names that onnx's inliner gives tensors within functions, each with today's.

    Two nodes are the same if they are of one operator and take the same tensors. Names that are
    the same then and now are among them. What stands in branches had no name then.
    """
    if not graph.proto.functions:
        return {}
    today: dict[tuple[str, tuple[str, ...]], deque[Sequence[str]]] = defaultdict(deque)
    constants = set(graph.weights)
    for node in graph.nodes:
        if not node.guards:
            today[_key(node.proto, {}, constants)].append(node.outputs)
    names: dict[str, str] = {}
    for proto in onnx.inliner.inline_local_functions(graph.proto).graph.node:
        if proto.op_type == "Constant" and not _is_text(proto):
            constants.update(proto.output)
            continue
        same = today.get(_key(proto, names, constants))
        if same:
            names.update(zip(proto.output, same.popleft(), strict=False))
    return names


def _is_text(proto: NodeProto) -> bool:
    """Whether a constant is text, which is a node then and now."""
    return any(attribute.name.startswith("value_string") for attribute in proto.attribute)


def _key(
    proto: NodeProto, names: Mapping[str, str], constants: set[str]
) -> tuple[str, tuple[str, ...]]:
    """What a node is known by; constants have names of their own in either version."""
    inputs = ("*" if name in constants else names.get(name, name) for name in proto.input)
    return proto.op_type, tuple(inputs)
