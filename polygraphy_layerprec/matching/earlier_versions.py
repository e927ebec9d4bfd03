"""Rankings and constraints of earlier versions, which had other names within functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from polygraphy_layerprec.model import identify
from polygraphy_layerprec.model.earlier_names import earlier_names
from polygraphy_layerprec.plan.network_widths import constraint_of
from polygraphy_layerprec.records.model_identity import are_comparable

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
        part
        for layer, node in zip(ranking.layers, nodes, strict=True)
        for part in ([layer] if node is None else _layers_of_today(graph, layer, node))
    ]
    ranked = (replace(layer, rank=rank) for rank, layer in enumerate(layers, start=1))
    return replace(ranking, layers=tuple(ranked))


def _layers_of_today(graph: Graph, layer: RankedLayer, node: Node) -> list[RankedLayer]:
    """A layer under the names of today; of an `If`, which was one, each layer in its branches.

    What was measured of the whole is taken to come from all of them alike.
    """
    meant = layers_within(graph, node)
    return [
        replace(
            layer,
            name=one.name,
            node_name=one.proto.name,
            op=one.op_type,
            block=one.block,
            graph_index=one.index,
            inputs=one.inputs,
            outputs=one.outputs,
            trace=one.trace if one.path else (),
            impact=layer.impact / math.sqrt(len(meant)),
            share=layer.share / len(meant),
            flops=layer.flops / len(meant),
        )
        for one in meant
    ]


def layers_within(graph: Graph, node: Node) -> list[Node]:
    """Returns a node that is a layer, or the layers in the branches of an `If`."""
    if not node.branches:
        return [node]
    owner = next(filter(None, node.outputs), "")
    return [one for one in graph.layers if any(guard.owner == owner for guard in one.guards)]


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
        part
        for constraint, node in zip(constraints, nodes, strict=True)
        for part in (
            [constraint]
            if node is None
            else [constraint_of(one, constraint.reason) for one in layers_within(graph, node)]
        )
    )


def _nodes_of(
    graph: Graph, digest: str, named: Sequence[RankedLayer | Constraint]
) -> list[Node | None]:
    """The nodes that are meant by names of an earlier version; None where they are today's."""
    if digest and are_comparable(digest, identify(graph).digest):
        return [None] * len(named)
    names = earlier_names(graph)
    firsts = [next(filter(None, layer.outputs), "") for layer in named]
    return [graph.producers.get(names.get(first, first)) for first in firsts]
