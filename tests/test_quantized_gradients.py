"""Layers in front of quantization: gradients pass straight through, in whatever form it comes."""

from __future__ import annotations

from unittest.mock import patch

import ml_dtypes
import numpy as np
import pytest
from onnx import helper, numpy_helper

from polygraphy_layerprec import observing, rank_model
from polygraphy_layerprec.execution.errors import NodeError
from polygraphy_layerprec.execution.kernels.node_session import tensor_of
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.model.quantized import pass_pairs_by
from polygraphy_layerprec.pipeline import measure_exact_impacts
from polygraphy_layerprec.precision import QDQ
from tests.models import build_model, normal, tensor
from tests.pair_models import quantised
from tests.quantized_models import MODELS, NODE, ROWS, WIDTH, X, pair, zero

MANY = 5000
NARROW = {
    "int4": (ml_dtypes.int4, 0, 0.7),
    "uint4": (ml_dtypes.uint4, 8, 0.7),
    "float8e4m3fn": (ml_dtypes.float8_e4m3fn, 0.0, 0.02),
    "float8e5m2": (ml_dtypes.float8_e5m2, 0.0, 0.02),
}


@pytest.mark.parametrize("impact", ["adjoint", "gain"])
@pytest.mark.parametrize("name", NARROW)
def test_so_it_does_where_numpy_lacks_the_type(name, impact):
    kind, at, scale = NARROW[name]
    try:
        tensor_of(np.zeros(2, kind))
    except (NodeError, RuntimeError):
        pytest.skip(f"no tensors of {name} can be made here")
    model, sample = pair(kind, at, opset=21, scale=np.float32(scale)), {"x": X}
    truth = measure_exact_impacts(model, [sample])

    first = rank_model(model, [sample], impact=impact).layers[0]

    assert first.name == "/shift"
    assert first.impact == pytest.approx(truth["b"], rel=0.3)


@pytest.mark.parametrize("impact", ["adjoint", "gain"])
@pytest.mark.parametrize("name", MODELS)
def test_a_cancellation_in_front_of_quantization_ranks_first(name, impact):
    model, sample = MODELS[name](), {"x": X}
    truth = measure_exact_impacts(model, [sample])

    ranking = rank_model(model, [sample], impact=impact)

    first = ranking.layers[0]
    assert first.name == "/shift"
    assert first.share > 0.98
    # Scalar gains take the two ways through a computed scale for independent.
    most = 5.0 if (name, impact) == ("computed scale", "gain") else 1.5
    assert truth["b"] / most < first.impact < truth["b"] * most
    assert ranking.output_error.forecast < most * ranking.output_error.measured
    assert "through the steps of" in first.caveat
    assert first.caveat in first.reason


@pytest.mark.parametrize("impact", ["adjoint", "gain"])
def test_beyond_the_range_nothing_moves(impact):
    """All values are clipped: what is in front of the quantizer does not matter."""
    model = pair(scale=np.float32(1e-6))

    ranking = rank_model(model, [{"x": X}], impact=impact)

    impacts = {layer.name: layer.impact for layer in ranking.layers}
    assert impacts["/shift"] == impacts["/fc1"] == 0.0
    assert impacts["/DQ"] > 0.0


def test_an_error_below_a_step_shows_rarely_and_whole():
    x = normal(3, ROWS, WIDTH)
    step = np.float32(64 * np.abs(x).mean() * 2.0**-12)
    nodes = [
        NODE("Tanh", ["x"], ["u"], name="/act"),
        NODE("QuantizeLinear", ["u", "scale", "zero"], ["q"], name="/Q"),
        NODE("DequantizeLinear", ["q", "scale", "zero"], ["y"], name="/DQ"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [tensor("x", [ROWS, WIDTH])],
        [tensor("y", None)],
        [numpy_helper.from_array(step, "scale"), zero(np.int16)],
    )
    opsets = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)

    ranking = rank_model(model, [{"x": x}])
    truth = measure_exact_impacts(model, [{"x": x}])

    act = next(layer for layer in ranking.layers if layer.name == "/act")
    assert act.impact > 3 * act.introduced_error
    assert act.impact == pytest.approx(truth["u"], rel=0.5)


@pytest.mark.parametrize("classes", [1, 2])
def test_what_errors_have_in_common_shows_at_an_output_of_few_numbers(classes):
    """All steps go one way: the error of the sum is that of all of them, not of their root."""
    inner = np.ones((WIDTH, MANY), np.float32) / WIDTH
    last = np.ones((MANY, classes), np.float32)
    nodes = [
        NODE("MatMul", ["x", "w1"], ["h"], name="/inner"),
        NODE("Add", ["h", "bias"], ["shifted"], name="/shift"),
        NODE("MatMul", ["shifted", "w2"], ["y"], name="/last"),
    ]
    weights = {"w1": inner, "bias": np.full(MANY, 0.3, np.float32), "w2": last}
    shapes = [tensor("x", [1, WIDTH])], [tensor("y", [1, classes])]
    model, sample = build_model(nodes, *shapes, weights), {"x": X[:1]}
    quantized = quantised(model, sample, ops={"MatMul"})
    pairs = pass_pairs_by(load_graph(quantized), load_graph(model))
    truth = measure_exact_impacts(pairs, [sample], precision=QDQ)
    swept = impacts_of_the_sweep(pairs, sample)

    assert swept == pytest.approx(truth, rel=0.02)


def impacts_of_the_sweep(pairs, sample):
    with patch.multiple(observing, _WORST_MEASURED=0, _LARGE_MEASURED=0):
        ranking = rank_model(pairs, [sample], precision=QDQ)
    return {layer.outputs[0]: layer.impact for layer in ranking.layers}
