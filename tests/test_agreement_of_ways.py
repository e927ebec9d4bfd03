"""One error for one plan: among our own ways, against float64, and in the model that is saved."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.backend.emulated.candidate import Candidate
from polygraphy_layerprec.emit.mixed_onnx import lower_model
from polygraphy_layerprec.execution.comparison.output_divergence import OutputDivergences
from polygraphy_layerprec.execution.comparison.set_measurement import SetMeasurement
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.plan import KeptLayers, Target
from polygraphy_layerprec.precision import FP16, PRECISIONS
from polygraphy_layerprec.records import Constraint, RequestedPrecisions
from polygraphy_layerprec.verify import verify_model
from tests.float64_evaluation import Float64Evaluation
from tests.planned_runs import emulated_executor, run_lowered, run_reference
from tests.random_graphs import (
    ALL_KINDS,
    ITERATING_KINDS,
    PLAIN_KINDS,
    STEPPED_KINDS,
    random_model,
    random_sample,
)

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph, Node

pytestmark = pytest.mark.onnxrt

Values = dict[str, np.ndarray[Any, Any]]


def draw_kept(graph: Graph, share: float, seed: int) -> list[Node]:
    return random.Random(seed).sample(graph.layers, round(len(graph.layers) * share))


def error_of(graph: Graph, reference: Values, candidate: Values) -> float:
    divergences = OutputDivergences(graph.outputs, FP16)
    divergences.add(reference, candidate)
    return divergences.error


def relative_error(reference: Values, candidate: Values) -> float:
    expected = np.concatenate([reference[name].ravel() for name in reference]).astype(np.float64)
    found = np.concatenate([candidate[name].ravel() for name in reference])
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30))


@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize("seed", range(25))
def test_all_our_ways_find_the_same_bits(seed, target):
    model, sample = random_model(seed), random_sample(seed)
    graph = load_graph(model)
    measured = SetMeasurement(graph, [sample], precision=FP16, outputs=graph.outputs, target=target)
    reference = run_reference(graph, sample)
    for share in (0.0, 0.5, 1.0):
        kept = draw_kept(graph, share, seed)
        constraints = tuple(
            Constraint(node.proto.name, node.op_type, node.inputs, node.outputs, "a test")
            for node in kept
        )
        asked = RequestedPrecisions("a test", "fp16", constraints, (), target=target.value)
        layers = KeptLayers.of_nodes(kept)

        first, second = (measured.divergence(layers).error for _ in range(2))
        verified = verify_model(graph, [sample], asked)
        runner = error_of(graph, reference, Candidate(graph, asked).run(sample))

        assert {first, second, verified.constrained_error, runner} == {first}
        assert verified.lowered_error == measured.divergence(KeptLayers()).error


@pytest.mark.parametrize("seed", range(25))
def test_a_ranking_compares_what_a_set_without_layers_is(seed):
    graph, sample = load_graph(random_model(seed)), random_sample(seed)

    compared = emulated_executor(graph).compare(sample, lambda _: None)

    lowered = run_lowered(graph, sample)
    assert compared.candidate.keys() == lowered.keys()
    assert all(np.array_equal(compared.candidate[name], lowered[name]) for name in lowered)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("seed", range(60))
def test_errors_are_those_of_an_evaluation_in_float64(seed, precision):
    model, sample = random_model(seed, PLAIN_KINDS), random_sample(seed)
    graph, node_run = load_graph(model), Float64Evaluation(model)
    reference, exact = run_reference(graph, sample), node_run.run(sample)
    for share in (0.0, 0.3, 0.7, 1.0):
        kept = KeptLayers.of_nodes(draw_kept(graph, share, seed)).outputs
        low = PRECISIONS[precision]

        found = relative_error(reference, run_lowered(graph, sample, kept, precision=low))
        expected = relative_error(exact, node_run.run(sample, low, kept))

        # Sums in FP32 have errors of their own, which count where nothing else is left.
        assert expected / 1.5 - 1e-6 <= found <= 1.5 * expected + 1e-6


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("seed", range(25))
def test_saved_models_are_valid_and_err_as_the_emulation_says(seed, precision, share):
    model, sample = random_model(seed), random_sample(seed)
    graph = load_graph(model)
    kept = KeptLayers.of_nodes(draw_kept(graph, share, seed)).outputs
    low = PRECISIONS[precision]

    mixed, summary = lower_model(model, kept, precision=low)

    onnx.checker.check_model(mixed, full_check=True)
    if precision == "bf16":
        return  # ONNX-Runtime has no kernels for it on a CPU
    reference = run_reference(graph, sample)
    emulated = error_of(graph, reference, run_lowered(graph, sample, kept, target=Target.ONNX))
    saved = error_of(graph, reference, run_reference(load_graph(mixed), sample))
    assert saved == pytest.approx(emulated, rel=0.1, abs=1e-7)
    assert summary.lowered or not emulated


def test_random_models_hold_every_kind():
    models = [random_model(seed) for seed in range(200)]
    operators = {node.op_type for model in models for node in model.graph.node}

    assert len(ALL_KINDS) == len(PLAIN_KINDS) + len(STEPPED_KINDS) + len(ITERATING_KINDS)
    assert operators >= {"If", "Loop", "LSTM", "GRU", "RNN", "QuantizeLinear", "Floor", "Where"}
    assert operators >= {"BatchNormalization", "LayerNormalization", "Conv", "Gemm", "MatMul"}
