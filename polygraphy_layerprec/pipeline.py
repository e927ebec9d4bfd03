"""The verbs: read this first.

model -> execution -> divergence -> ranking -> selection -> emit -> verify -> report
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.execution.comparison import Progress
from polygraphy_layerprec.execution.counted_outputs import part_that_counts
from polygraphy_layerprec.execution.exact_impacts import measure_exact_impacts
from polygraphy_layerprec.execution.measured_sets import measured_errors
from polygraphy_layerprec.execution.samples import check_samples
from polygraphy_layerprec.execution.sessions import threads_per_session
from polygraphy_layerprec.execution.set_measurement import SetMeasurement
from polygraphy_layerprec.model import Graph, load_graph
from polygraphy_layerprec.plan import KeptLayers, Target
from polygraphy_layerprec.precision import FP16, Precision
from polygraphy_layerprec.ranking_run import RankingRun
from polygraphy_layerprec.records import CurvePoint, ImpactMethod, Ranking, Selection
from polygraphy_layerprec.selection import SelectionRequest, error_curve, select_layers

if TYPE_CHECKING:
    import onnx

    from polygraphy_layerprec.divergence.loss import Loss

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
    run = RankingRun(
        whole,
        precision=precision,
        impact=impact,
        exact_count=exact_count,
        outputs=outputs,
        loss=loss,
        max_memory_bytes=max_memory_bytes,
    )
    if run.runs_samples_again:
        samples = list(samples)
    with threads_per_session(threads):
        checked = enumerate(check_samples(samples, whole.inputs))
        comparison = run.observe(checked, sample_count=sample_count, progress=progress)
        return run.ranking(
            comparison, samples=samples, generated_inputs=generated_inputs, progress=progress
        )


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
    max_abs: bool = False,
    progress: Progress | None = None,
) -> Selection:
    """Returns the layers to keep in FP32, measured if there is a model, else as forecast.

    Args:
        ranking: The ranked layers.
        request: What is asked for.
        model: The model that the ranking is about, to measure sets of layers with.
        samples: Input samples for it, which are kept in memory.
        outputs: Names of the outputs that count, all by default.
        max_abs: Whether the tolerance is the largest absolute error, instead of the relative L2
            error; needs a model.
        progress: Called with sets measured, 0, and what is going on.

    Raises:
        ValueError: If the request is not valid, or the model is another one than was ranked.
    """
    if model is None:
        if max_abs:
            raise ValueError(
                "`--max-abs` needs the model: the forecast knows relative errors only."
            )
        return select_layers(ranking, request)
    graph = model if isinstance(model, Graph) else load_graph(model)
    measure = measured_errors(
        ranking, graph, samples, outputs=outputs, max_abs=max_abs, progress=progress
    )
    return select_layers(ranking, request, measure=measure)


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
    measure = measured_errors(
        ranking, graph, samples, outputs=outputs, max_abs=False, progress=progress
    )
    return error_curve(ranking, measure=measure)
