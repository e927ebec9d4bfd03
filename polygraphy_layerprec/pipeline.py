"""The verbs: read this first.

model -> execution -> divergence -> ranking -> selection -> emit -> verify -> report
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.divergence.judges import judges_for
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.execution.comparison.counted_outputs import part_that_counts
from polygraphy_layerprec.execution.comparison.exact_impacts import measure_exact_impacts
from polygraphy_layerprec.execution.comparison.measured_model import MeasuredModel, measure_here
from polygraphy_layerprec.execution.comparison.set_measurement import SetMeasurement
from polygraphy_layerprec.execution.comparison.side_by_side import Progress
from polygraphy_layerprec.execution.kernels.sessions import threads_per_session
from polygraphy_layerprec.model import Graph, load_graph
from polygraphy_layerprec.observing import RankRequest, observe
from polygraphy_layerprec.plan import KeptLayers, Target
from polygraphy_layerprec.precision import FP16, Precision, precision_named
from polygraphy_layerprec.records import Criterion, CurvePoint, ImpactMethod, Ranking, Selection
from polygraphy_layerprec.remedies import find_remedies
from polygraphy_layerprec.selection import SelectionRequest, error_curve, select_layers

if TYPE_CHECKING:
    import onnx

    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.divergence.loss import Loss

__all__ = [
    "measure_curve",
    "measure_exact_impacts",
    "measure_output_error",
    "measured_model",
    "rank",
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
    threads: int | None = None,
    generated_inputs: bool = False,
    sample_count: int | None = None,
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
        threads: Threads of each ONNX-Runtime session, by default all cores, up to 16. Equal ones
            give equal numbers.
        generated_inputs: Whether the samples were made up, which the ranking then says.
        sample_count: How many samples there are, if that is known: progress counts all of them.
        progress: Called with nodes done, nodes in all, and what is going on.

    Raises:
        ModelError: If the model cannot be read.
        SampleError: If a sample does not fit the model, has no elements, or holds a NaN.
        ExecutionError: If nothing can be measured.
    """
    whole = model if isinstance(model, Graph) else load_graph(model)
    request = RankRequest(
        precision,
        impact,
        exact_count,
        None if outputs is None else tuple(outputs),
        loss,
        max_memory_bytes,
        generated_inputs,
    )
    return rank(
        whole, samples, request, sample_count=sample_count, threads=threads, progress=progress
    )


def rank(
    graph: Graph,
    samples: Iterable[Sample],
    request: RankRequest,
    *,
    sample_count: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Ranking:
    """Returns the layers of a graph, ordered as was requested; see `rank_model`."""
    if request.runs_samples_again:
        samples = list(samples)
    with threads_per_session(threads):
        observed = observe(graph, samples, request, sample_count=sample_count, progress=progress)
        return observed.ranking(samples=samples, progress=progress)


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
    model: str | os.PathLike[str] | onnx.ModelProto | Graph | MeasuredModel | None = None,
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
        model: The model that the ranking is about, to measure sets of layers with; or what measures
            them, with samples, outputs and judges of its own, as `measured_model` gives it.
        samples: Input samples for it, which are kept in memory.
        outputs: Names of the outputs that count, all by default.
        judges: What judges sets, besides that no element may become NaN or infinite; by default
            the tolerance of the request, or the default criterion. Needs a model.
        progress: Called with sets measured, 0, and what is going on.

    Raises:
        UserError: If the request is not valid, or the model is another one than was ranked.
    """
    if model is None:
        if judges:
            raise UserError(_needs_model(judges[0].criteria[0]))
        return select_layers(ranking, request)
    if not isinstance(model, MeasuredModel):
        tolerance = request.tolerance
        model = measured_model(
            ranking, model, samples, outputs=outputs, judges=judges, tolerance=tolerance
        )
    few, others = model.to_choose_by(progress), model.held_out(progress)
    selection = select_layers(ranking, request, measure=few, held_out=others)
    if others is not None and not selection.holds_elsewhere:
        again = select_layers(ranking, request, measure=model.on_all(progress))
        selection = again.with_note(
            f"What was chosen on the first {few.sample_count} samples did not pass on the other "
            f"{others.sample_count}, so all of them chose."
        )
    return selection.with_remedies(find_remedies(model.graph, selection.layers, ranking.precision))


def measured_model(
    ranking: Ranking,
    model: str | os.PathLike[str] | onnx.ModelProto | Graph,
    samples: Iterable[Sample],
    *,
    outputs: Sequence[str] | None = None,
    judges: Sequence[Judge] = (),
    tolerance: float | None = None,
) -> MeasuredModel:
    """Returns what measures sets of layers, for a choice and a curve: no set is measured twice.

    Args:
        ranking: As in `select_constraints`, as all others.
        model: As there.
        samples: As there.
        outputs: As there.
        judges: As there.
        tolerance: That of the request.

    Raises:
        UserError: If the model is another one than was ranked.
        SampleError: If a sample does not fit the model.
        ExecutionError: If there is no sample, or no output that counts can be computed.
    """
    graph = model if isinstance(model, Graph) else load_graph(model)
    judged_by = judges_for(precision_named(ranking.precision), tolerance=tolerance, others=judges)
    return measure_here(ranking, graph, samples, judges=judged_by, outputs=outputs)


def measure_curve(
    ranking: Ranking,
    *,
    model: str | os.PathLike[str] | onnx.ModelProto | Graph | MeasuredModel | None = None,
    samples: Iterable[Sample] = (),
    outputs: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> tuple[CurvePoint, ...]:
    """Returns the output error against the number of layers in FP32, at a handful of points.

    Args:
        ranking: The ranked layers.
        model: The model that the ranking is about, or what measures it; without it nothing is
            measured.
        samples: As in `select_constraints`.
        outputs: As in `select_constraints`.
        progress: As in `select_constraints`.

    Raises:
        UserError: If the model is another one than was ranked.
    """
    if model is None:
        return error_curve(ranking)
    if not isinstance(model, MeasuredModel):
        model = measured_model(ranking, model, samples, outputs=outputs)
    return error_curve(ranking, measure=model.on_all(progress).error)


def _needs_model(criterion: Criterion) -> str:
    """Returns why a criterion cannot be met by the forecast."""
    return f"{criterion.text!r} needs the model: the forecast knows relative L2 errors only."
