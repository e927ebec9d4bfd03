"""Nodes that depend on constants alone: whoever runs the model computes them once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polygraphy_layerprec.model.operators import draws_random_numbers

if TYPE_CHECKING:
    from polygraphy_layerprec.emit.mixed_onnx.graph_view import GraphView

__all__ = ["folded_nodes"]


def folded_nodes(view: GraphView) -> frozenset[int]:
    """Returns the indices of the nodes whose every source is a constant or such a node."""
    known = set(view.constants)
    found = set()
    for index, node in enumerate(view.nodes):
        sources = {name for name in node.input if name} | view.captured[index]
        if not sources or draws_random_numbers(node.op_type, node.domain):
            continue
        if known.issuperset(sources):
            known.update(node.output)
            found.add(index)
    return frozenset(found)
