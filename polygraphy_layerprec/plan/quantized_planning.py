"""Plans of a quantised model: which of its layers keep their pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polygraphy_layerprec.model.quantized import QuantizedGraph
from polygraphy_layerprec.plan.kept_layers import KeptLayers
from polygraphy_layerprec.plan.planning import Planner
from polygraphy_layerprec.plan.widths import NodePlan, Plan, Target, Verdict, Width

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.precision import Precision

__all__ = ["QuantizedPlanner", "planner_for"]


def planner_for(
    graph: Graph, precision: Precision, target: Target = Target.STRONG
) -> Planner | QuantizedPlanner:
    """Returns what makes plans of a graph, quantised or not."""
    if isinstance(graph, QuantizedGraph):
        return QuantizedPlanner(graph, precision)
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
        )

    def _of(self, node: Node, kept: KeptLayers) -> NodePlan:
        verdict = Verdict.UNTOUCHED
        if self._graph.is_quantized(node):
            verdict = Verdict.KEPT if node in kept else Verdict.LOWERED
        nothing = (None,) * len(node.inputs)
        return NodePlan(verdict, "", nothing, (None,) * len(node.outputs))
