"""Rankings and constraints of earlier versions, which had other names within functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from polygraphy_layerprec.model import identify
from polygraphy_layerprec.model.digest import are_comparable
from polygraphy_layerprec.model.earlier_names import earlier_names
from polygraphy_layerprec.plan.network_widths import constraint_of

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.records import Constraint, RankedLayer, Ranking

__all__ = ["constraints_of_today", "ranking_of_today"]


def ranking_of_today(graph: Graph, ranking: Ranking) -> Ranking:
    """Returns a ranking with the names that its layers have in the graph."""
    nodes = _nodes_of(graph, ranking.model.digest, ranking.layers)
    if not any(nodes):
        return ranking
    layers = [
        layer
        if node is None
        else replace(
            layer,
            name=node.name,
            node_name=node.proto.name,
            inputs=node.inputs,
            outputs=node.outputs,
            trace=node.trace if node.path else (),
        )
        for layer, node in zip(ranking.layers, nodes, strict=True)
    ]
    return replace(ranking, layers=tuple(layers))


def constraints_of_today(
    graph: Graph, digest: str, constraints: Sequence[Constraint]
) -> tuple[Constraint, ...]:
    """Returns constraints with the names that their layers have in the graph.

    Args:
        graph: The model that is there.
        digest: Digest of the model that they were made for, of any version; empty if unknown.
        constraints: The constraints.
    """
    nodes = _nodes_of(graph, digest, constraints)
    return tuple(
        constraint if node is None else constraint_of(node, constraint.reason)
        for constraint, node in zip(constraints, nodes, strict=True)
    )


def _nodes_of(
    graph: Graph, digest: str, named: Sequence[RankedLayer | Constraint]
) -> list[Node | None]:
    """The nodes that are meant, if there are names among them that the graph does not have."""
    known = all(any(name in graph.producers for name in layer.outputs) for layer in named)
    if known or (digest and are_comparable(digest, identify(graph).digest)):
        return [None] * len(named)
    names = earlier_names(graph)
    firsts = (next(filter(None, layer.outputs), "") for layer in named)
    return [graph.producers.get(names.get(first, "")) for first in firsts]
