"""Float tensors that decide shapes: they must stay exact, whatever the layers around them do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polygraphy_layerprec.emit.mixed_onnx.operators import (
    SHAPE_ARITHMETIC,
    SHAPE_MOVEMENT,
    SHAPE_OPERANDS,
    SHAPE_SOURCES,
)

if TYPE_CHECKING:
    from onnx import NodeProto

    from polygraphy_layerprec.emit.mixed_onnx.graph_view import GraphView

__all__ = ["shape_arithmetic_nodes"]


def shape_arithmetic_nodes(view: GraphView) -> frozenset[int]:
    """Returns the nodes that compute shapes: from shapes alone, or what a shape is read from."""
    return _derived_from_shapes(view) | _leading_to_shapes(view)


def _derived_from_shapes(view: GraphView) -> frozenset[int]:
    derived: set[str] = set()
    found = set()
    for index, node in enumerate(view.nodes):
        if node.op_type in SHAPE_SOURCES:
            derived.update(node.output)
            continue
        variable = [name for name in node.input if name and name not in view.constants]
        # Picking from a constant by a shape, as from a table of positions, is the network's work.
        picks = node.op_type in SHAPE_MOVEMENT and node.input[0] in view.constants
        arithmetic = node.op_type in SHAPE_ARITHMETIC and not picks
        if arithmetic and variable and derived.issuperset(variable):
            derived.update(node.output)
            found.add(index)
    return frozenset(found)


def _leading_to_shapes(view: GraphView) -> frozenset[int]:
    found: set[int] = set()
    pending = [name for node in view.nodes for name in _shape_operands(node)]
    while pending:
        index = view.producers.get(pending.pop())
        if index is None or index in found:
            continue
        node = view.nodes[index]
        # Anything else is the network itself, which may well decide a shape, but not exactly.
        if node.op_type in SHAPE_ARITHMETIC:
            found.add(index)
            pending.extend(name for name in node.input if name)
    return frozenset(found)


def _shape_operands(node: NodeProto) -> list[str]:
    positions = SHAPE_OPERANDS.get(node.op_type, ())
    return [node.input[p] for p in positions if p < len(node.input) and node.input[p]]
