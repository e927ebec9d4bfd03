"""The verbs: read this first.

model -> execution -> divergence -> ranking -> selection -> emit -> verify -> report
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.divergence.judges import judges_for
from polygraphy_layerprec.execution import ExecutionError, check_emulation
from polygraphy_layerprec.execution.comparison import Progress, compare_samples
from polygraphy_layerprec.execution.counted_outputs import part_that_counts
from polygraphy_layerprec.execution.measured_sets import MeasuredSets, held_out_count
from polygraphy_layerprec.execution.samples import check_samples
from polygraphy_layerprec.execution.set_measurement import SetMeasurement
from polygraphy_layerprec.model import Graph, load_graph
from polygraphy_layerprec.plan import KeptLayers, Planner, Target
from polygraphy_layerprec.precision import FP16, PRECISIONS, Precision
from polygraphy_layerprec.ranking.assembly import (
    assemble_ranking,
    nothing_to_judge,
    nothing_to_rank,
)
from polygraphy_layerprec.ranking.guards import find_guard_reasons, with_guards
from polygraphy_layerprec.ranking.order import first_output, rank_layers, with_exact_impacts
from polygraphy_layerprec.records import Criterion, CurvePoint, ImpactMethod, Ranking, Selection
from polygraphy_layerprec.remedies import find_remedies
from polygraphy_layerprec.selection import SelectionRequest, error_curve, select_layers

if TYPE_CHECKING:
    import onnx

    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.divergence.loss import Loss
    from polygraphy_layerprec.execution.comparison import Comparison
    from polygraphy_layerprec.ranking.order import LayerObservation

__all__ = [
    "measure_curve",
    "measure_exact_impacts",
    "measure_output_error",
    "rank_model",
    "select_constraints",
]

Sample = Mapping[str, np.ndarray[Any, Any]]


def rank_model(  # noqa: PLR0913 - a keyword for each option of the command line
    model: str | os.PathLike[str] | onnx.ModelProto | Graph,
    samples: Iterable[Sample],
    *,
    precision: Precision = FP16,
    impact: ImpactMethod = "adjoint",
    exact_count: int = 0,
    outputs: Sequence[str] | None = None,
    loss: Loss | None = None,
    max_memory_bytes: int | None = None,
    generated_inputs: bool = False,
    progress: Progress | None = None,
) -> Ranking:
    """Returns the layers of `model`, ordered by what lowering them does to its outputs.

    Args:
        model: Path of an `.onnx` file, a model in memory, or a graph that was loaded.
        samples: Input samples, each an array for every input by name.
        precision: The low precision.
        impact: How impact is found: `adjoint`; the cheaper and less exact `gain`; or `exact`, a
            forward pass for each layer.
        exact_count: How many layers from the top have their impact measured by a pass of its own.
        outputs: Names of the outputs that count, all by default.
        loss: What matters at the outputs, instead of their relative errors: see `Loss`.
        max_memory_bytes: Memory for activations; beyond it they are kept on disk. Half of what is
            free by default.
        generated_inputs: Whether the samples were made up, which the ranking then says.
        progress: Called with nodes done, nodes in all, and what is going on.

    Raises:
        ModelError: If the model cannot be read.
        SampleError: If a sample does not fit the model, has no elements, or holds a NaN.
        ExecutionError: If nothing can be measured.
    """
    check_emulation()
    whole = model if isinstance(model, Graph) else load_graph(model)
    graph, counted = part_that_counts(whole, outputs)
    plan = Planner(graph, precision).plan()
    if loss is not None and (impact != "adjoint" or exact_count):
        raise ExecutionError("A loss needs the adjoint: leave out `--impact` and `--exact`.")
    if exact_count or impact == "exact":
        samples = list(samples)  # they are run again
    comparison = compare_samples(
        plan,
        check_samples(samples, graph.inputs),
        impact=impact,
        outputs=counted,
        budget_bytes=max_memory_bytes or _half_of_free_memory(),
        loss=loss,
        progress=progress,
    )
    method: ImpactMethod = "gain" if impact == "gain" else "adjoint"
    observed = comparison.observations.results(method, lambda index: whole.nodes[index].name)
    if not observed:
        raise nothing_to_rank(whole, comparison)
    if not comparison.observations.judged:
        raise nothing_to_judge(whole, comparison, counted)
    observed = _with_measured_ids(graph, comparison, observed, precision=precision, outputs=counted)
    layers = rank_layers(observed, precision)
    remeasured = layers if impact == "exact" else layers[:exact_count]
    if remeasured:
        names = {first_output(layer.outputs) for layer in remeasured}
        exact = measure_exact_impacts(
            graph, samples, precision=precision, layers=names, progress=progress, outputs=counted
        )
        layers = rank_layers(with_exact_impacts(observed, exact), precision)
    guards = find_guard_reasons(
        graph, comparison, layers, precision=precision, outputs=counted, progress=progress
    )
    layers = with_guards(layers, guards)
    return assemble_ranking(
        whole,
        plan,
        comparison,
        layers,
        impact=impact,
        outputs=tuple(outputs or ()),
        generated_inputs=generated_inputs,
        of_loss=loss is not None,
    )


def _with_measured_ids(
    graph: Graph,
    comparison: Comparison,
    observed: list[LayerObservation],
    *,
    precision: Precision,
    outputs: tuple[str, ...],
) -> list[LayerObservation]:
    """Measures what no gradient says: another id than was meant is another row of a table."""
    names = {first_output(layer.outputs) for layer in observed if layer.largest_inexact_integer}
    if not names:
        return observed
    samples = comparison.samples_of_ids
    exact = measure_exact_impacts(
        graph, samples, precision=precision, layers=names, outputs=outputs
    )
    # In the other samples every id is exact.
    share = math.sqrt(len(samples) / comparison.sample_count)
    return with_exact_impacts(observed, {name: share * error for name, error in exact.items()})


def measure_exact_impacts(
    model: str | os.PathLike[str] | onnx.ModelProto | Graph,
    samples: Iterable[Sample],
    *,
    precision: Precision = FP16,
    layers: Collection[str] | None = None,
    outputs: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Returns the true impact of layers: the output error when one's introduced error is injected.

    They go by the name of the first output tensor that is not absent.

    Costs one forward pass for each layer and sample. What a layer takes from others is exact: the
    rounding between two layers belongs to the one that makes the tensor, so that squared impacts
    add up to the squared error of the whole.

    Args:
        model: As in `rank_model`.
        samples: As in `rank_model`.
        precision: The low precision.
        layers: Names of the layers to measure, as in what is returned; all by default.
        outputs: Names of the outputs that count, all by default.
        progress: Called with layers done, layers in all, and what is going on.
    """
    whole = model if isinstance(model, Graph) else load_graph(model)
    graph, counted = part_that_counts(whole, outputs)
    measurement = SetMeasurement(graph, samples, precision=precision, outputs=counted)
    chosen = [
        node for node in graph.layers if layers is None or first_output(node.outputs) in layers
    ]
    impacts = {}
    for done, node in enumerate(chosen, start=1):
        alone = measurement.divergence(KeptLayers.all_but(graph, node), exact_inputs=True)
        impacts[first_output(node.outputs)] = alone.finite_error
        if progress is not None:
            progress(done, len(chosen), "layers alone")
    return impacts


def measure_output_error(
    model: str | os.PathLike[str] | onnx.ModelProto | Graph,
    samples: Iterable[Sample],
    *,
    fp32_outputs: Collection[str] = (),
    precision: Precision = FP16,
    outputs: Sequence[str] | None = None,
    target: Target = Target.STRONG,
) -> float:
    """Returns the relative L2 error of the outputs with a chosen set of layers kept in FP32.

    Args:
        model: As in `rank_model`.
        samples: As in `rank_model`.
        fp32_outputs: An output tensor of each layer to keep in FP32.
        precision: The low precision of all other layers.
        outputs: Names of the outputs that count, all by default.
        target: Whom the model is planned for.
    """
    whole = model if isinstance(model, Graph) else load_graph(model)
    graph, counted = part_that_counts(whole, outputs)
    measurement = SetMeasurement(
        graph, samples, precision=precision, outputs=counted, target=target
    )
    return measurement.divergence(KeptLayers.of_outputs(fp32_outputs)).error


def select_constraints(
    ranking: Ranking,
    request: SelectionRequest,
    *,
    model: str | os.PathLike[str] | onnx.ModelProto | Graph | None = None,
    samples: Iterable[Sample] = (),
    outputs: Sequence[str] | None = None,
    judges: Sequence[Judge] = (),
    progress: Progress | None = None,
) -> Selection:
    """Returns the layers to keep in FP32, measured if there is a model, else as forecast.

    With eight samples or more, the last quarter is held out: the set is chosen on the others, and
    must hold there too. Where it does not, it is chosen anew on all of them.

    Args:
        ranking: The ranked layers.
        request: What is asked for.
        model: The model that the ranking is about, to measure sets of layers with.
        samples: Input samples for it, which are kept in memory.
        outputs: Names of the outputs that count, all by default.
        judges: What judges sets, besides that no element may become NaN or infinite; by default
            the tolerance of the request, or the default criterion. Needs a model.
        progress: Called with sets measured, 0, and what is going on.

    Raises:
        ValueError: If the request is not valid, or the model is another one than was ranked.
    """
    if model is None:
        if judges:
            raise ValueError(_needs_model(judges[0].criteria[0]))
        return select_layers(ranking, request)
    graph = model if isinstance(model, Graph) else load_graph(model)
    every = list(samples)
    seen = len(every) - held_out_count(len(every))
    judged_by = judges_for(
        PRECISIONS[ranking.precision], tolerance=request.tolerance, others=judges
    )
    measure = partial(
        MeasuredSets, ranking, graph, judges=judged_by, outputs=outputs, progress=progress
    )
    held_out = measure(every[seen:]) if every[seen:] else None
    selection = select_layers(ranking, request, measure=measure(every[:seen]), held_out=held_out)
    if not selection.holds_elsewhere:
        selection = select_layers(ranking, request, measure=measure(every))
    return selection.with_remedies(find_remedies(graph, selection.layers, ranking.precision))


def measure_curve(
    ranking: Ranking,
    *,
    model: str | os.PathLike[str] | onnx.ModelProto | Graph | None = None,
    samples: Iterable[Sample] = (),
    outputs: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> tuple[CurvePoint, ...]:
    """Returns the output error against the number of layers in FP32, at a handful of points.

    Args:
        ranking: The ranked layers.
        model: The model that the ranking is about; without it nothing is measured.
        samples: As in `select_constraints`.
        outputs: As in `select_constraints`.
        progress: As in `select_constraints`.

    Raises:
        ValueError: If the model is another one than was ranked.
    """
    if model is None:
        return error_curve(ranking)
    graph = model if isinstance(model, Graph) else load_graph(model)
    sets = MeasuredSets(ranking, graph, samples, outputs=outputs, progress=progress)
    return error_curve(ranking, measure=sets.error)


def _needs_model(criterion: Criterion) -> str:
    """Returns why a criterion cannot be met by the forecast."""
    return f"{criterion.text!r} needs the model: the forecast knows relative L2 errors only."


def _half_of_free_memory() -> int | None:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):  # not on every platform
        return None
