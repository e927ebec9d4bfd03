"""Rankings of quantised models: order, reasons, and what is not known."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from polygraphy_layerprec import observing
from polygraphy_layerprec.model import identify, load_graph
from polygraphy_layerprec.model.quantized import pass_pairs_by
from polygraphy_layerprec.pipeline import measure_exact_impacts, rank_model
from polygraphy_layerprec.precision import QDQ
from polygraphy_layerprec.ranking.correlation import rank_correlation
from polygraphy_layerprec.ranking.quantized_units import pair_warnings
from tests.model_parts import build_model, node, normal, tensor
from tests.pair_models import cnn, cnn_inputs, mlp, mlp_inputs, quantised

pytestmark = pytest.mark.onnxrt

DEPTH, WIDTH = 12, 24


def deep(outlier=None):
    """A chain of products with residuals; what one of them takes may have a large channel that
    does not matter."""
    nodes, weights, before = [], {}, "x"
    for place in range(DEPTH):
        weights[f"w{place}"] = normal(place, WIDTH, WIDTH, scale=0.12 + 0.1 * (place % 5))
        taken = before
        if place == outlier:
            taken = "shifted"
            weights["large"] = np.where(np.arange(WIDTH) == 5, 4000, 0).astype(np.float32)
            weights[f"w{place}"][5] = 0.0
            nodes.append(node("Add", [before, "large"], taken, name="/shift"))
        nodes += [
            node("MatMul", [taken, f"w{place}"], f"m{place}", name=f"/layer.{place}/MatMul"),
            node("Tanh", [f"m{place}"], f"t{place}", name=f"/layer.{place}/Tanh"),
            node("Add", [f"t{place}", before], f"a{place}", name=f"/layer.{place}/Add"),
        ]
        before = f"a{place}"
    nodes.append(node("MatMul", [before, "head"], "y", name="/head"))
    weights["head"] = normal(50, WIDTH, 8, scale=0.3)
    x, y = tensor("x", [32, WIDTH]), tensor("y", [32, 8])
    return build_model(nodes, [x], [y], weights)


def samples():
    return [{"x": normal(300 + i, 32, WIDTH)} for i in range(2)]


def ranked(model, reference, inputs, **options):
    graph = pass_pairs_by(load_graph(model), None if reference is None else load_graph(reference))
    return graph, rank_model(graph, inputs, precision=QDQ, **options)


@pytest.fixture
def forecast(monkeypatch):
    """Has no layer measured but those that lose much."""
    monkeypatch.setattr(observing, "_WORST_MEASURED", 0)


@pytest.mark.usefixtures("forecast")
def test_impacts_are_those_of_a_run_for_each_layer():
    reference, inputs = deep(), samples()
    model = quantised(reference, inputs[0], ops={"MatMul"})

    graph, ranking = ranked(model, reference, inputs)

    exact = measure_exact_impacts(graph, inputs, precision=QDQ)
    found = [layer.impact for layer in ranking.layers]
    truth = [exact[layer.outputs[0]] for layer in ranking.layers]
    assert len(ranking.layers) == DEPTH + 1
    assert rank_correlation(np.array(found), np.array(truth)) >= 0.9
    assert np.allclose(found, truth, rtol=0.5)
    assert ranking.output_error.forecast == pytest.approx(ranking.output_error.measured, rel=0.3)


def test_exact_impacts_are_measured_for_whole_decisions():
    reference, inputs = cnn(), [cnn_inputs()]

    graph, ranking = ranked(quantised(reference, inputs[0]), reference, inputs, impact="exact")

    exact = measure_exact_impacts(graph, inputs, precision=QDQ)
    assert {layer.impact_method for layer in ranking.layers} == {"exact"}
    assert sorted(exact.values()) == pytest.approx(sorted(layer.impact for layer in ranking.layers))


def test_an_outlier_channel_comes_first_with_that_reason():
    reference, inputs = deep(outlier=7), samples()
    model = quantised(reference, inputs[0], ops={"MatMul"})

    _, ranking = ranked(model, reference, inputs)

    first = ranking.layers[0]
    assert (first.name, first.kind) == ("/layer.7/MatMul", "outlier channel")
    assert "channel 5 of 'shifted'" in first.reason


def test_a_saturated_scale_comes_first_with_that_reason():
    reference, inputs = deep(), samples()
    model = quantised(reference, inputs[0], ops={"MatMul"})
    (scale,) = (t for t in model.graph.initializer if t.name == "a4_scale")
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) / 8, "a4_scale"))

    _, ranking = ranked(model, reference, inputs)

    first = ranking.layers[0]
    assert (first.name, first.kind) == ("/layer.5/MatMul", "saturation")
    assert "of 'a4' are clipped to" in first.reason


@pytest.mark.usefixtures("forecast")
def test_pairs_that_leave_little_are_measured_and_not_forecast():
    reference, inputs = deep(), samples()
    model = quantised(reference, inputs[0], ops={"MatMul"})
    (scale,) = (t for t in model.graph.initializer if t.name == "a4_scale")
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * 100, "a4_scale"))

    graph, ranking = ranked(model, reference, inputs)

    exact = measure_exact_impacts(graph, inputs, precision=QDQ)
    measured = {layer.name for layer in ranking.layers if layer.impact_method == "exact"}
    assert measured == {layer.name for layer in ranking.layers if layer.introduced_error > 0.3}
    assert "/layer.5/MatMul" in measured
    (layer,) = (layer for layer in ranking.layers if layer.name == "/layer.5/MatMul")
    assert layer.impact == pytest.approx(exact["m5"])


def test_the_worst_are_measured_and_the_others_forecast(monkeypatch):
    monkeypatch.setattr(observing, "_WORST_MEASURED", 3)
    reference, inputs = deep(), samples()

    graph, ranking = ranked(quantised(reference, inputs[0], ops={"MatMul"}), reference, inputs)

    exact = measure_exact_impacts(graph, inputs, precision=QDQ)
    measured = [layer for layer in ranking.layers if layer.impact_method == "exact"]
    assert len(measured) == 3
    assert [layer.impact for layer in measured] == pytest.approx(
        [exact[layer.outputs[0]] for layer in measured]
    )
    assert {layer.impact_method for layer in ranking.layers[5:]} == {"adjoint"}


def test_a_decision_names_its_members():
    reference, inputs = cnn(), [cnn_inputs()]

    _, ranking = ranked(quantised(reference, inputs[0]), reference, inputs)

    (layer,) = (layer for layer in ranking.layers if layer.name == "/body/Conv")
    assert layer.members == ("/body/Conv", "/body/Add")
    assert set(layer.outputs) == {"c2", "sum"}
    assert "one decision with '/body/Add', which takes the same pair" in layer.reason
    (pooled,) = (layer for layer in ranking.layers if layer.name == "/head/Conv")
    assert pooled.members == ("/pool", "/head/Conv")


def test_without_a_reference_the_error_of_constants_is_told_as_unknown():
    inputs = [mlp_inputs()]
    model = quantised(mlp(), inputs[0], ops={"MatMul"})

    _, ranking = ranked(model, None, inputs)

    unknown = "what quantisation did to its constants is not known"
    assert all(unknown in layer.caveat and unknown in layer.reason for layer in ranking.layers)
    assert any("3 constants" in w and "--reference" in w for w in ranking.warnings)
    _, known = ranked(model, mlp(), inputs)
    assert not any(unknown in layer.reason for layer in known.layers)
    assert known.output_error.measured > ranking.output_error.measured


def test_a_ranking_is_about_the_quantised_model_and_names_the_reference():
    inputs = [mlp_inputs()]
    model = quantised(mlp(), inputs[0], ops={"MatMul"})

    _, ranking = ranked(model, mlp(), inputs)

    assert ranking.precision == "qdq"
    assert ranking.model.digest == identify(load_graph(model)).digest
    assert ranking.layer_count == len(ranking.layers) == 2
    assert ranking.conditions.reference == identify(load_graph(mlp())).digest


def in_fp8():
    return quantised(
        mlp(), mlp_inputs(), kind=TensorProto.FLOAT8E4M3FN, granularity="tensor", ops={"MatMul"}
    )


def without_zero_point():
    model = in_fp8()
    for one in model.graph.node:
        if one.name == "r/Q":
            del one.input[2]
            one.attribute.append(helper.make_attribute("output_dtype", TensorProto.FLOAT8E4M3FN))
    return model


def read_twice():
    model = in_fp8()
    model.graph.node.append(node("Neg", ["r"], "negative", name="/Neg"))
    model.graph.output.append(tensor("negative", [32, 16]))
    return model


@pytest.mark.parametrize(
    ("make", "is_told"),
    [
        (in_fp8, True),
        (lambda: quantised(mlp(), mlp_inputs(), ops={"MatMul"}), False),
        (without_zero_point, False),
        (read_twice, False),
    ],
    ids=["FP8", "INT8", "without a zero point", "read twice"],
)
def test_a_relu_that_onnxruntime_leaves_out_is_told(make, is_told):
    warnings = pair_warnings(pass_pairs_by(load_graph(make())))

    told = [warning for warning in warnings if "leaves out the Relu" in warning]
    assert bool(told) == is_told
    assert all("1 FP8 pair, 'r/DQ' the first" in warning for warning in told)
