"""The record of a ranking, put together from what was observed."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING

from polygraphy_layerprec.divergence.nonfinite import trace_nonfinite
from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.execution.kernels.device import device_name
from polygraphy_layerprec.execution.kernels.sessions import runtime_version, session_threads
from polygraphy_layerprec.model import Graph, identify
from polygraphy_layerprec.model.digest import reference_digest
from polygraphy_layerprec.model.quantized import QuantizedGraph
from polygraphy_layerprec.ranking.cautions import (
    not_taken,
    warn_of_figures,
    warn_of_inputs,
    warn_of_model,
)
from polygraphy_layerprec.ranking.order import forecast_error
from polygraphy_layerprec.ranking.stability import order_stability
from polygraphy_layerprec.records import (
    ImpactMethod,
    NonFiniteOrigin,
    OutputError,
    RankedLayer,
    Ranking,
    RunConditions,
    UnmeasuredLayer,
)

if TYPE_CHECKING:
    from polygraphy_layerprec.execution.comparison.side_by_side import Comparison
    from polygraphy_layerprec.plan import Plan

__all__ = ["assemble_ranking", "installed_versions", "nothing_to_judge", "nothing_to_rank"]


def assemble_ranking(
    graph: Graph,
    plan: Plan,
    comparison: Comparison,
    layers: tuple[RankedLayer, ...],
    *,
    impact: ImpactMethod,
    outputs: tuple[str, ...],
    generated_inputs: bool,
    of_loss: bool = False,
) -> Ranking:
    """Returns the ranking with everything that a reader must know beside the layers.

    Args:
        graph: The whole model.
        plan: What became of the tensors of the candidate, in the part of it that was run.
        comparison: What the samples said.
        layers: The layers, worst first.
        impact: How impacts were asked to be found.
        outputs: Names of the outputs that count; none where all do.
        generated_inputs: Whether the samples were made up.
        of_loss: Whether impacts are on a loss of the user's own.
    """
    error = OutputError(
        measured=comparison.outputs.error,
        forecast=forecast_error(layers),
        outputs=comparison.outputs.records(),
        forecast_of_loss=of_loss,
    )
    return Ranking(
        model=identify(graph),
        precision=plan.precision.name,
        conditions=RunConditions(
            backend="onnxruntime-emulated",
            versions=installed_versions(),
            sample_count=comparison.sample_count,
            inputs="generated" if generated_inputs else "user",
            impact=impact,
            outputs=outputs,
            threads=session_threads(),
            reference=reference_digest(graph),
            device=device_name(),
        ),
        output_error=error,
        layers=layers,
        unmeasured=_unmeasured(graph, plan, comparison),
        nonfinite_origins=_nonfinite_origins(graph, comparison),
        stability=order_stability(comparison.observations.sample_powers),
        warnings=(
            *warn_of_inputs(graph, comparison, outputs, generated_inputs=generated_inputs),
            *warn_of_model(graph, plan, comparison),
            *warn_of_figures(graph, comparison, layers, error),
        ),
    )


def nothing_to_rank(graph: Graph, comparison: Comparison) -> ExecutionError:
    """Returns the error that says why no layer was measured."""
    if comparison.failures:
        index, reason = min(comparison.failures.items())
        node = graph.nodes[index]
        return ExecutionError(
            f"No layer of {graph.name!r} could be measured.\n"
            f"Note: The first to fail is {node.name!r} ({node.op_type}): {reason}"
        )
    return ExecutionError(
        f"{graph.name or 'The model'!r} has no layer that computes in FP32, so there is nothing to "
        f"rank.\nNote: Of its {len(graph.nodes)} nodes, {len(comparison.lowered_already)} run in "
        f"FP16 or BF16 already, and the others move values or compute integers."
    )


def nothing_to_judge(
    graph: Graph, comparison: Comparison, outputs: tuple[str, ...]
) -> ExecutionError:
    """Returns the error that says why no layer can be judged by any output.

    Args:
        graph: The model.
        comparison: What the samples said.
        outputs: The outputs that count.
    """
    if comparison.failures:
        node = graph.nodes[min(comparison.failures)]
        taken = [name for name in node.sources if name in graph.producers]
        return ExecutionError(
            f"No layer can be judged: none of the outputs {list(outputs)!r} can be computed.\n"
            f"Note: The first to fail is {node.name!r} ({node.op_type}): "
            f"{comparison.failures[node.index]}\n"
            + (
                f"Rank the model up to there: `--outputs {' '.join(taken)}`."
                if taken
                else "Give other inputs with `--load-inputs`."
            )
        )
    return ExecutionError(
        f"No layer can be judged by the outputs {list(outputs)!r}.\n"
        f"Note: With these inputs each is zero or not finite throughout, or made of integers that "
        f"no rounding changes.\n"
        f"Give other inputs with `--load-inputs`, or name other tensors with `--outputs`."
    )


def _unmeasured(graph: Graph, plan: Plan, comparison: Comparison) -> tuple[UnmeasuredLayer, ...]:
    reasons = {
        node.index: "it stands in a branch that no sample takes; it is lowered all the same"
        for node in not_taken(plan.graph, comparison)
    }
    for left in plan.left:
        index = graph.producers[next(filter(None, left.outputs))].index
        if graph.nodes[index].is_layer:
            reasons.setdefault(index, f"it stays in FP32: {left.reason}")
    reasons |= comparison.failures
    unranked = graph.unranked if isinstance(graph, QuantizedGraph) else ()
    told = (UnmeasuredLayer(n.name, n.op, n.outputs, n.reason, failed=False) for n in unranked)
    return *told, *(
        UnmeasuredLayer(
            (node := graph.nodes[i]).name,
            node.op_type,
            node.outputs,
            reason,
            failed=i in comparison.failures,
        )
        for i, reason in sorted(reasons.items())
    )


def _nonfinite_origins(graph: Graph, comparison: Comparison) -> tuple[NonFiniteOrigin, ...]:
    visits = comparison.observations.visits
    return tuple(
        NonFiniteOrigin(
            name=graph.nodes[trace.origin].name,
            op=graph.nodes[trace.origin].op_type,
            value=trace.value,
            in_reference=trace.in_reference,
            path=tuple(graph.nodes[index].name for index in trace.path),
        )
        for trace in trace_nonfinite(visits, reaching_outputs=comparison.nonfinite_from)
    )


def installed_versions() -> tuple[tuple[str, str], ...]:
    """Returns the packages that numbers depend on, with their versions, sorted by name."""
    packages = ("numpy", "onnx", "onnxruntime", "polygraphy", "polygraphy_layerprec")
    found = ((name, _installed_version(name)) for name in packages)
    return tuple((name, version) for name, version in found if version is not None)


@cache
def _installed_version(name: str) -> str | None:
    if name == "onnxruntime":  # which several packages bring, another for a GPU
        return runtime_version()
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
