"""What a reader must know of a ranking beside its layers, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polygraphy_layerprec.ranking.doubts import describe_instability, describe_refutation
from polygraphy_layerprec.ranking.order import forecast_holds
from polygraphy_layerprec.ranking.quantized_units import pair_warnings
from polygraphy_layerprec.ranking.stability import order_stability
from polygraphy_layerprec.records.numbers import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from polygraphy_layerprec.execution.comparison.side_by_side import Comparison
    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.plan import Plan
    from polygraphy_layerprec.records import OutputError, RankedLayer

__all__ = ["not_taken", "warn_of_figures", "warn_of_inputs", "warn_of_model"]


def warn_of_inputs(
    graph: Graph, comparison: Comparison, outputs: tuple[str, ...], *, generated_inputs: bool
) -> Iterator[str]:
    """Yields what is doubtful about what the layers are judged by.

    Args:
        graph: The whole model.
        comparison: What the samples said.
        outputs: Names of the outputs that count; none where all do.
        generated_inputs: Whether the samples were made up.
    """
    judged = [output.name for output in comparison.outputs.records()]
    if not outputs and not set(judged) <= set(graph.outputs):
        yield (
            f"Every output needs an operator that ONNX-Runtime lacks. Layers are judged by what it "
            f"takes: {', '.join(map(repr, judged))}."
        )
    if generated_inputs:
        yield (
            "The inputs were made up, and random data mislead: give real ones with `--load-inputs`."
        )


def warn_of_model(graph: Graph, plan: Plan, comparison: Comparison) -> Iterator[str]:
    """Yields which parts of the model the ranking does not tell of, or not as of the others.

    Args:
        graph: The whole model.
        plan: What became of the tensors of the candidate, in the part of it that was run.
        comparison: What the samples said.
    """
    if comparison.lowered_already:
        first = graph.nodes[min(comparison.lowered_already)].name
        low = count_of(len(comparison.lowered_already), "node")
        yield (
            f"In FP16 or BF16 in the model itself: {low}, {first!r} the first. They are part of "
            f"the reference and are not ranked."
        )
    yield from pair_warnings(graph)
    yield from _warn_of_branches(plan.graph, comparison, graph)
    in_double = [node for node in plan.left if node.reason == "it computes in DOUBLE"]
    if in_double:
        wide = count_of(len(in_double), "node")
        yield (
            f"In DOUBLE, which TensorRT turns into FP32: {wide}, {in_double[0].name!r} the first. "
            f"They are not lowered."
        )


def warn_of_figures(
    graph: Graph, comparison: Comparison, layers: Sequence[RankedLayer], error: OutputError
) -> Iterator[str]:
    """Yields what is doubtful about impacts, the forecast and the order.

    Args:
        graph: The whole model.
        comparison: What the samples said.
        layers: The layers, worst first.
        error: The output error, measured and forecast.
    """
    estimated = sum(layer.impact_method == "gain" for layer in layers)
    if estimated and comparison.with_adjoint:
        yield (
            f"The impact of {count_of(estimated, 'layer')} passes an operator without a rule for "
            f"gradients, where a measured gain stood in: see their reasons."
        )
    if any(layer.overflow for layer in layers) and forecast_holds(error):
        yield (
            "The forecast leaves out overflow, whose damage is not a rounding error: it holds once "
            "the layers that overflow are kept in FP32."
        )
    flipped = {graph.nodes[i].name: n for i, n in comparison.observations.flipped.items()}
    stability = order_stability(comparison.observations.sample_powers)
    yield from filter(
        None,
        (
            describe_refutation(error, layers, flipped),
            describe_instability(stability, len(layers)),
        ),
    )


def not_taken(graph: Graph, comparison: Comparison) -> list[Node]:
    """Returns the layers in branches that no sample took."""
    return [
        node
        for node in graph.layers
        if node.guards
        and node.index not in comparison.ran
        and node.index not in comparison.failures
    ]


def _warn_of_branches(part: Graph, comparison: Comparison, graph: Graph) -> Iterator[str]:
    skipped = not_taken(part, comparison)
    if skipped:
        yield (
            f"{count_of(len(skipped), 'layer')}, {skipped[0].name!r} the first, "
            f"{'is' if len(skipped) == 1 else 'are'} in branches that no sample "
            f"takes: they are lowered, and nothing is known of their errors."
        )
    if comparison.flips:
        first = graph.nodes[min(comparison.flips)].name
        flips = count_of(len(comparison.flips), "conditional")
        yield (
            f"Low precision changes the decision of {flips}, "
            f"{first!r} the first: other layers run than in FP32."
        )
