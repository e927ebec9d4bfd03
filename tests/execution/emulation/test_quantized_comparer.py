"""What pairs do, node by node, against whole models and arithmetic of our own."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from polygraphy_layerprec.execution.comparison.set_measurement import SetMeasurement
from polygraphy_layerprec.execution.comparison.side_by_side import SampleComparer
from polygraphy_layerprec.execution.emulation import quantized_pairs
from polygraphy_layerprec.execution.emulation.quantized_comparer import _channel_axis
from polygraphy_layerprec.execution.kernels.node_session import tensor_of
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.model.quantized import pass_pairs_by
from polygraphy_layerprec.plan import KeptLayers
from polygraphy_layerprec.plan.quantized_planning import planner_for
from polygraphy_layerprec.precision import QDQ
from tests.models import build_model, node, tensor
from tests.pair_models import cnn, cnn_inputs, mlp, mlp_inputs, quantised, run_whole

pytestmark = pytest.mark.onnxrt

INT8, FP8 = TensorProto.INT8, TensorProto.FLOAT8E4M3FN
KINDS = [(INT8, "tensor"), (INT8, "channel"), (INT8, "block"), (FP8, "tensor"), (FP8, "block")]


def constant(model, name):
    (found,) = (t for t in model.graph.initializer if t.name == name)
    return numpy_helper.to_array(found)


def through_pair(values, scale, kind):
    """Quantised and back, in float64, by the definition of the operators."""
    steps = values.astype(np.float64) / scale
    if kind == INT8:
        return np.clip(np.rint(steps), -128, 127) * scale
    return np.clip(steps, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float64) * scale


def observed(graph, inputs):
    comparer = SampleComparer(
        planner_for(graph, QDQ).plan(),
        impact="adjoint",
        outputs=graph.outputs,
        budget_bytes=None,
    )
    return comparer.compare(0, inputs)


@pytest.mark.parametrize(("kind", "granularity"), KINDS)
def test_a_layer_introduces_what_its_own_pairs_do(kind, granularity):
    reference, inputs = mlp(), mlp_inputs()
    model = quantised(reference, inputs, kind=kind, granularity=granularity, ops={"MatMul"})
    graph = pass_pairs_by(load_graph(model), load_graph(reference))

    layers = observed(graph, inputs).observations.layers

    scales = {name: constant(model, f"{name}_scale").astype(np.float64) for name in ("x", "wq")}
    if granularity == "block":
        scales = {name: np.repeat(scale, 8, axis=0) for name, scale in scales.items()}
    x, w = inputs["x"].astype(np.float64), constant(reference, "wq").astype(np.float64)
    error = through_pair(x, scales["x"], kind) @ through_pair(w, scales["wq"], kind) - x @ w
    found = layers[graph.producers["q"].index].sums
    assert found.introduced_power == pytest.approx(np.sum(error**2), rel=1e-3)
    assert found.reference_power == pytest.approx(np.sum((x @ w) ** 2), rel=1e-4)


@pytest.mark.parametrize(("kind", "granularity"), KINDS)
def test_with_every_pair_the_candidate_is_the_quantised_model(kind, granularity):
    reference, inputs = mlp(), mlp_inputs()
    model = quantised(reference, inputs, kind=kind, granularity=granularity, ops={"MatMul"})
    graph = pass_pairs_by(load_graph(model), load_graph(reference))

    measured = observed(graph, inputs).outputs.error

    exact, whole = run_whole(reference, inputs)["y"], run_whole(model, inputs)["y"]
    assert measured == pytest.approx(
        np.linalg.norm(whole - exact) / np.linalg.norm(exact), rel=1e-5
    )


def test_a_convolutional_candidate_is_the_quantised_model_too():
    reference, inputs = cnn(), cnn_inputs()
    model = quantised(reference, inputs)
    graph = pass_pairs_by(load_graph(model), load_graph(reference))

    sets = SetMeasurement(graph, [inputs], precision=QDQ, outputs=graph.outputs)

    exact, whole = run_whole(reference, inputs)["y"], run_whole(model, inputs)["y"]
    expected = np.linalg.norm(whole - exact) / np.linalg.norm(exact)
    assert sets.divergence(KeptLayers()).error == pytest.approx(expected, rel=1e-5)
    assert observed(graph, inputs).outputs.error == pytest.approx(expected, rel=1e-5)
    assert sets.divergence(KeptLayers.of_nodes(graph.decided_nodes)).error == 0.0


def test_a_pool_between_two_pairs_introduces_nothing_of_its_own():
    reference, inputs = cnn(), cnn_inputs()
    graph = pass_pairs_by(load_graph(quantised(reference, inputs)), load_graph(reference))

    layers = observed(graph, inputs).observations.layers

    pool = graph.producers["pooled"]
    assert pool.index not in layers
    assert layers[graph.producers["c3"].index].sums.introduced_power > 0.0


def test_scales_are_compared_with_what_passes_them():
    reference, inputs = mlp(), mlp_inputs()
    graph = pass_pairs_by(load_graph(quantised(reference, inputs)), load_graph(reference))

    fits = observed(graph, inputs).pair_fits

    assert fits["x/DQ"].max_abs == pytest.approx(np.abs(inputs["x"]).max())
    assert max(fits["x/DQ"].channel_steps) == pytest.approx(127.0)
    assert len(fits["x/DQ"].channel_steps) == 16


@pytest.mark.parametrize(
    ("op_type", "rank", "axis", "expected"),
    [
        ("Conv", 3, None, 1),
        ("MaxPool", 5, None, 1),
        ("MatMul", 3, None, 2),
        ("Add", 4, None, 1),
        ("Add", 2, None, 1),
        ("Add", 1, None, None),
        ("MatMul", 3, 0, 0),
    ],
)
def test_channels_are_where_the_scale_or_the_operator_has_them(op_type, rank, axis, expected):
    inputs = ["x"] if op_type == "MaxPool" else ["x", "w"]
    fed = [tensor(name, None) for name in inputs]
    graph = load_graph(build_model([node(op_type, inputs, "y")], fed, [tensor("y", None)]))

    assert _channel_axis(graph.nodes[0], rank, axis) == expected


def test_dequantised_constants_are_kept_as_long_as_they_fit(monkeypatch):
    reference, inputs = mlp(), mlp_inputs()
    graph = pass_pairs_by(load_graph(quantised(reference, inputs)), load_graph(reference))
    weights = {
        found.index: name
        for found in graph.nodes
        for name, chain in graph.chains_of(found).items()
        if chain[0].is_weight
    }
    first = graph.weights[next(iter(weights.values()))]
    monkeypatch.setattr(quantized_pairs, "_MOST_KEPT_BYTES", first.nbytes)
    runner = quantized_pairs.PairRunner(graph)

    def is_kept(index, name):
        value = {name: tensor_of(graph.weights[name].read())}
        one, other = (runner.feeds(graph.nodes[index], value)[name] for _ in range(2))
        return one is other

    assert len(weights) > 1
    assert [is_kept(*found) for found in weights.items()] == [True] + [False] * (len(weights) - 1)
