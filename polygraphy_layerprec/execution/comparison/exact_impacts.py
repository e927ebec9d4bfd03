"""The impact of single layers, each measured by a run in mixed precision."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.execution.comparison.counted_outputs import part_that_counts
from polygraphy_layerprec.execution.comparison.set_measurement import SetMeasurement
from polygraphy_layerprec.model import Graph, load_graph
from polygraphy_layerprec.model.quantized.records import decisions_of
from polygraphy_layerprec.plan import KeptLayers
from polygraphy_layerprec.precision import FP16, Precision
from polygraphy_layerprec.ranking.order import first_output

if TYPE_CHECKING:
    import onnx

    from polygraphy_layerprec.execution.comparison.side_by_side import Progress

__all__ = ["measure_exact_impacts"]

Sample = Mapping[str, np.ndarray[Any, Any]]


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
    chosen = {
        name: unit
        for unit in decisions_of(graph)
        for name in (first_output(unit[0].outputs),)
        if layers is None or name in layers
    }
    impacts = {}
    for done, (name, unit) in enumerate(chosen.items(), start=1):
        alone = measurement.divergence(KeptLayers.all_but(graph, *unit), exact_inputs=True)
        impacts[name] = alone.finite_error
        if progress is not None:
            progress(done, len(chosen), "layers alone")
    return impacts
