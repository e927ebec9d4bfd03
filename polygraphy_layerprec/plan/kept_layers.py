"""The layers that stay in FP32."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph, Node

__all__ = ["KeptLayers"]


@dataclass(frozen=True, slots=True)
class KeptLayers:
    """Nodes of one graph that stay in FP32; none of them may be known as another tensor's maker."""

    outputs: frozenset[str] = frozenset()
    """Output tensors of the nodes, by which they are known; names that no node makes are idle."""

    @classmethod
    def of_nodes(cls, nodes: Iterable[Node]) -> KeptLayers:
        """Returns these nodes."""
        return cls(frozenset(name for node in nodes for name in node.outputs if name))

    @classmethod
    def of_outputs(cls, names: Iterable[str]) -> KeptLayers:
        """Returns the nodes that make these tensors; absent outputs have no name and make none."""
        return cls(frozenset(names) - {""})

    @classmethod
    def all_but(cls, graph: Graph, *lowered: Node) -> KeptLayers:
        """Returns every layer of a graph but these nodes."""
        spared = {node.index for node in lowered}
        return cls.of_nodes(node for node in graph.decided_nodes if node.index not in spared)

    def __contains__(self, node: Node) -> bool:
        """Whether a node stays in FP32."""
        return not self.outputs.isdisjoint(node.outputs)

    def lowered(self, node: Node) -> bool:
        """Whether a node may be lowered."""
        return node not in self
