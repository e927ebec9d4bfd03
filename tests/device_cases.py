"""Models on which a device must agree with the host, and what agreement of two rankings means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto
from scipy.stats import spearmanr

from polygraphy_layerprec.execution.samples.plausible import plausible_samples
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.model.quantized import pass_pairs_by
from polygraphy_layerprec.observing import RankRequest
from polygraphy_layerprec.pipeline import rank
from polygraphy_layerprec.precision import QDQ
from tests import (
    guarded_models,
    hazard_models,
    models,
    quantized_models,
    structure_models,
    subgraph_models,
)
from tests.pair_models import cnn, cnn_inputs, mlp, mlp_inputs, quantised
from tests.random_graphs import random_model, random_sample

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

    from polygraphy_layerprec.records import RankedLayer, Ranking

__all__ = ["CASES", "PAIRS", "RANDOM_SEEDS", "assert_agrees", "random_case", "ranked_pairs"]

RANDOM_SEEDS = range(60)

_MADE_UP = (
    *(models.small_cnn, models.small_transformer),
    *(hazard_models.cancellation, hazard_models.overflow_then_recovery),
    *(hazard_models.decomposed_layer_norm, hazard_models.long_reduction),
    *(hazard_models.underflow, hazard_models.additive_mask),
    *(hazard_models.infinity_minus_infinity, hazard_models.harmless_large_values),
    *(subgraph_models.if_with_capture, subgraph_models.loop_with_capture),
    *(subgraph_models.scan_with_capture, subgraph_models.local_function),
    *(structure_models.quantize_dequantize, structure_models.sequences),
    *(structure_models.optional_tensors, structure_models.float64_part),
    *(structure_models.float16_part, structure_models.constant_nodes),
    *(structure_models.integer_output, structure_models.dynamic_shapes),
    *(quantized_models.dynamic_pair, quantized_models.integer_matmul),
)
_GIVEN = (
    *(guarded_models.normalised_similarity, guarded_models.shared_guard),
    *(guarded_models.in_a_branch, guarded_models.in_a_scan),
    *(guarded_models.log_of_probabilities, guarded_models.entropy),
)

PAIRED = {"mlp": lambda: (mlp(), mlp_inputs()), "cnn": lambda: (cnn(), cnn_inputs())}
PAIRS = (
    *((TensorProto.INT8, granularity, "mlp") for granularity in ("tensor", "channel", "block")),
    *((TensorProto.FLOAT8E4M3FN, granularity, "mlp") for granularity in ("tensor", "block")),
    *((TensorProto.INT8, granularity, "cnn") for granularity in ("tensor", "channel")),
)
"""What `ranked_pairs` takes."""

Case = "tuple[onnx.ModelProto, dict[str, np.ndarray[Any, Any]]]"


def _made_up(build: Callable[[], onnx.ModelProto]) -> Callable[[], Any]:
    def case() -> Any:
        model = build()
        return model, next(iter(plausible_samples(load_graph(model))))

    return case


CASES: dict[str, Callable[[], Any]] = {
    **{build.__name__: _made_up(build) for build in _MADE_UP},
    **{build.__name__: build for build in _GIVEN},
}
"""By name, what makes a model and a sample for it."""


def random_case(seed: int) -> Any:
    """Returns a random model and a sample for it."""
    return random_model(seed), random_sample(seed)


def assert_agrees(found: Ranking, expected: Ranking, *, tolerance: float) -> None:
    """Checks a ranking from a device against that from the host.

    Args:
        found: From the device.
        expected: From the host.
        tolerance: Relative error allowed to the output error and each layer's impact; of the
            order of the layers, the rank correlation is 0.99 at least.
    """
    there = {layer.name: layer for layer in found.layers}
    here = {layer.name: layer for layer in expected.layers}
    assert there.keys() == here.keys()
    np.testing.assert_allclose(
        found.output_error.measured, expected.output_error.measured, rtol=tolerance, atol=1e-7
    )
    for name, layer in here.items():
        assert _findings(there[name]) == _findings(layer), name
    impacts = [[layers[name].impact for name in here] for layers in (there, here)]
    if len(set(impacts[1])) > 2:
        assert spearmanr(*impacts).statistic >= 0.99


def _findings(layer: RankedLayer) -> tuple[Any, ...]:
    return (
        layer.kind,
        layer.overflow,
        layer.overflow_count,
        layer.reference_nonfinite_count,
        layer.candidate_nonfinite_count,
    )


def ranked_pairs(kind: int, granularity: str, build: str) -> Ranking:
    """Returns a ranking of the pairs of a quantised model, on what is chosen around the call.

    Args:
        kind: Element type of what the pairs quantise to.
        granularity: `tensor`, `channel` or `block`.
        build: `mlp` or `cnn`.
    """
    reference, inputs = PAIRED[build]()
    model = quantised(reference, inputs, kind=kind, granularity=granularity)
    graph = pass_pairs_by(load_graph(model), load_graph(reference))
    return rank(graph, [inputs], RankRequest(precision=QDQ))
