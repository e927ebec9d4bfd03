"""Runs a quantised model as a plan says: with the pairs of its lowered layers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polygraphy_layerprec.execution.emulation.planned import PlannedExecutor
from polygraphy_layerprec.execution.emulation.quantized_pairs import PairRunner
from polygraphy_layerprec.model.quantized import QuantizedGraph

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnxruntime as ort

    from polygraphy_layerprec.execution.emulation.planned import HeldTensors
    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.plan.widths import Plan
    from polygraphy_layerprec.precision import Precision

__all__ = ["QuantizedExecutor", "executor_for"]


def executor_for(
    graph: Graph, precision: Precision, *, tf32: bool = False, weight_bytes: int = 0
) -> PlannedExecutor:
    """Returns what runs the plans of a graph, quantised or not.

    Args:
        graph: The graph.
        precision: The low precision of its plans.
        tf32: As for `PlannedExecutor`; not where pairs are run.
        weight_bytes: As for `PlannedExecutor`.
    """
    if isinstance(graph, QuantizedGraph):
        return QuantizedExecutor(graph, precision, weight_bytes=weight_bytes)
    return PlannedExecutor(graph, precision, tf32=tf32, weight_bytes=weight_bytes)


class QuantizedExecutor(PlannedExecutor):
    """Executes plans of one quantised model; without a plan, its float graph."""

    def __init__(
        self, graph: QuantizedGraph, precision: Precision, *, weight_bytes: int = 0
    ) -> None:
        super().__init__(graph, precision, weight_bytes=weight_bytes)
        self._quantized = graph
        self._pairs = PairRunner(graph)

    def _load(self, node: Node, held: HeldTensors) -> tuple[dict[str, ort.OrtValue], HeldTensors]:
        # The pair of a table makes all its rows, so that indices stay those of the whole table.
        if self._quantized.chains_of(node):
            return self._weights.load(node), held
        return super()._load(node, held)

    def _planned_outputs(
        self,
        node: Node,
        plan: Plan,
        weights: dict[str, ort.OrtValue],
        held: HeldTensors,
        *,
        exact_inputs: bool,  # noqa: ARG002 - what is not lowered is exact here
    ) -> Sequence[ort.OrtValue | None]:
        feeds = {n: weights[n] if n in weights else held[n].tensor for n in node.sources}
        if plan.is_lowered(node):
            feeds = self._pairs.feeds(node, feeds)
        return self._runner.run(node, feeds)
