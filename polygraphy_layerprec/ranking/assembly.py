"""The record of a ranking, put together from what was observed."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from polygraphy_layerprec.divergence.nonfinite import trace_nonfinite
from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.model import Graph, identify
from polygraphy_layerprec.ranking.order import forecast_error, rank_correlation
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
    from collections.abc import Sequence

    from polygraphy_layerprec.execution.comparison import Comparison
    from polygraphy_layerprec.precision import Precision

__all__ = ["assemble_ranking", "nothing_to_rank"]


def assemble_ranking(
    graph: Graph,
    comparison: Comparison,
    layers: tuple[RankedLayer, ...],
    *,
    precision: Precision,
    impact: ImpactMethod,
    outputs: tuple[str, ...],
    generated_inputs: bool,
) -> Ranking:
    """Returns the ranking with everything that a reader must know beside the layers.

    Args:
        graph: The model.
        comparison: What the samples said.
        layers: The layers, worst first.
        precision: The low precision.
        impact: How impacts were asked to be found.
        outputs: Names of the outputs that count; none where all do.
        generated_inputs: Whether the samples were made up.
    """
    return Ranking(
        model=identify(graph),
        precision=precision.name,
        conditions=RunConditions(
            backend="onnxruntime-emulated",
            versions=_versions(),
            sample_count=comparison.sample_count,
            inputs="generated" if generated_inputs else "user",
            impact=impact,
            outputs=outputs,
        ),
        output_error=OutputError(
            measured=comparison.outputs.error,
            forecast=forecast_error(layers),
            outputs=comparison.outputs.records(),
        ),
        layers=layers,
        unmeasured=_unmeasured(graph, comparison),
        nonfinite_origins=_nonfinite_origins(graph, comparison),
        stability=_stability(comparison.observations.sample_powers),
        warnings=_warnings(graph, comparison, layers, generated_inputs=generated_inputs),
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


def _unmeasured(graph: Graph, comparison: Comparison) -> tuple[UnmeasuredLayer, ...]:
    return tuple(
        UnmeasuredLayer(graph.nodes[i].name, graph.nodes[i].op_type, graph.nodes[i].outputs, reason)
        for i, reason in sorted(comparison.failures.items())
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


def _stability(sample_powers: Sequence[Sequence[float]]) -> float | None:
    """Rank correlation of the impacts between even and odd samples."""
    powers = np.array(sample_powers)
    if powers.shape[1] < 2:
        return None
    return rank_correlation(powers[:, ::2].mean(axis=1), powers[:, 1::2].mean(axis=1))


def _warnings(
    graph: Graph,
    comparison: Comparison,
    layers: Sequence[RankedLayer],
    *,
    generated_inputs: bool,
) -> tuple[str, ...]:
    warnings = []
    if generated_inputs:
        warnings.append(
            "The inputs were made up, and random data mislead: give real ones with `--load-inputs`."
        )
    if comparison.lowered_already:
        first = graph.nodes[min(comparison.lowered_already)].name
        warnings.append(
            f"{len(comparison.lowered_already)} nodes, {first!r} the first, run in FP16 or BF16 in "
            f"the model itself: they are part of the reference and are not ranked."
        )
    estimated = sum(layer.impact_method == "gain" for layer in layers)
    if estimated and comparison.with_adjoint:
        warnings.append(
            f"The impact of {estimated} layers passes an operator without a rule for gradients, "
            f"where a measured gain stood in: see `impact_method`."
        )
    if any(layer.overflow for layer in layers):
        warnings.append(
            "The forecast leaves out overflow, whose damage is not a rounding error: it holds once "
            "the layers that overflow are kept in FP32."
        )
    return tuple(warnings)


def _versions() -> tuple[tuple[str, str], ...]:
    packages = ("numpy", "onnx", "onnxruntime", "polygraphy", "polygraphy_layerprec")
    found = ((name, _installed_version(name)) for name in packages)
    return tuple((name, version) for name, version in found if version is not None)


@cache
def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
