"""Plans of a quantised model: which of its layers keep their pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.model.quantized import QuantizedGraph
from polygraphy_layerprec.plan.kept_layers import KeptLayers
from polygraphy_layerprec.plan.planning import Planner
from polygraphy_layerprec.plan.widths import NodePlan, Plan, Target, Verdict, Width
from polygraphy_layerprec.precision import QDQ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.precision import Precision

__all__ = ["QuantizedPlanner", "planner_for"]


def planner_for(
    graph: Graph, precision: Precision, target: Target = Target.STRONG
) -> Planner | QuantizedPlanner:
    """Returns what makes plans of a graph, quantised or not.

    Raises:
        UserError: If pairs are to be planned, and the graph does not tell them apart.
    """
    if isinstance(graph, QuantizedGraph):
        return QuantizedPlanner(graph, precision)
    if precision == QDQ:
        raise UserError(
            f"What pairs do to {graph.name!r} is not to be seen in its graph as it is.\n"
            f"Give what `pass_pairs_by` of `polygraphy_layerprec.model.quantized` makes of it and "
            f"of the float model."
        )
    return Planner(graph, precision, target)


class QuantizedPlanner:
    """Makes the plans of one quantised model.

    A layer that is lowered takes its inputs through their pairs; one that is kept takes them as
    they are. Widths are not asked for: tensors are FP32 on both sides of a pair.
    """

    def __init__(self, graph: QuantizedGraph, precision: Precision) -> None:
        self._graph = graph
        self._precision = precision

    def plan(self, kept: KeptLayers = KeptLayers()) -> Plan:  # noqa: B008 - immutable
        """Returns what becomes of the model with these layers kept in high precision."""
        nodes = tuple(self._of(node, kept) for node in self._graph.nodes)
        natives = {
            name: Width.FP32
            for node, plan in zip(self._graph.nodes, nodes, strict=True)
            if plan.verdict is Verdict.KEPT
            for name in node.outputs
            if name
        }
        return Plan(
            graph=self._graph,
            target=Target.ONNX,
            precision=self._precision,
            kept=kept,
            nodes=nodes,
            natives=natives,
            casts=frozenset(),
            removed_pair_count=len(self._graph.by_output) - self._left_pairs(nodes),
        )

    def _left_pairs(self, nodes: Sequence[NodePlan]) -> int:
        """How many pairs there are before the layers that are lowered, and where none is."""
        graph = self._graph
        kept: set[str] = set()
        left: set[str] = set()
        for node, plan in zip(graph.nodes, nodes, strict=True):
            if plan.verdict is Verdict.KEPT:
                kept.update(node.outputs)
                continue
            left.update(pair.name for chain in graph.chains_of(node).values() for pair in chain)
        unknown = set(graph.unknown_weights)
        left.update(
            pair.name
            for pair in graph.by_output.values()
            if pair.source in unknown
            for reader in graph.quantized.consumers.get(pair.output, ())
            if kept.isdisjoint(reader.outputs)
        )
        return len(left)

    def _of(self, node: Node, kept: KeptLayers) -> NodePlan:
        verdict = Verdict.UNTOUCHED
        if self._graph.is_quantized(node):
            verdict = Verdict.KEPT if node in kept else Verdict.LOWERED
        nothing = (None,) * len(node.inputs)
        return NodePlan(verdict, "", nothing, (None,) * len(node.outputs))
