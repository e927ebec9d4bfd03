"""Positions and times: large numbers of which rounding takes the last bits, before Sin and Cos.

Keeping the layer that multiplies them is of no use unless its readers are kept as well, since its
output is as large as its input.
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from polygraphy_layerprec import rank_model
from polygraphy_layerprec.pipeline import measure_output_error, select_constraints
from polygraphy_layerprec.precision import BF16, FP16
from polygraphy_layerprec.selection import SelectionRequest
from tests.models import build_model, node, normal, scalar, tensor

FREQUENCIES = 10000.0 ** (-np.arange(0, 32, 2) / 32)


def time_features():
    """Seconds by a power of two: the rounded product of rounded seconds is exact."""
    nodes = [
        node("Mul", ["t", "half"], "angle", name="/time/Mul"),
        node("Sin", ["angle"], "sin", name="/time/Sin"),
        node("Cos", ["angle"], "cos", name="/time/Cos"),
        node("Concat", ["sin", "cos"], "both", name="/time/Concat", axis=1),
        *perceptron("both"),
    ]
    weights = {"half": scalar(0.5), "w1": normal(0, 2, 16), "w2": normal(1, 16, 4)}
    sample = {"t": np.arange(10001, 10065, dtype=np.float32)[:, None]}
    return build_model(nodes, [tensor("t", [64, 1])], [tensor("y", [64, 4])], weights), sample


def sinusoidal_positions():
    nodes = [
        node("Mul", ["t", "frequencies"], "angle", name="/positions/Mul"),
        node("Sin", ["angle"], "sin", name="/positions/Sin"),
        node("Cos", ["angle"], "cos", name="/positions/Cos"),
        node("Concat", ["sin", "cos"], "both", name="/positions/Concat", axis=1),
        *perceptron("both"),
    ]
    weights = {
        "frequencies": FREQUENCIES.astype(np.float32)[None],
        "w1": normal(0, 32, 16, scale=0.5),
        "w2": normal(1, 16, 4, scale=0.5),
    }
    sample = {"t": np.arange(3000, 3064, dtype=np.float32)[:, None]}
    return build_model(nodes, [tensor("t", [64, 1])], [tensor("y", [64, 4])], weights), sample


def rotary_embedding():
    """As `transformers` exports it: `inv_freq @ position_ids`, beyond position 2,048."""
    nodes = [
        node("Cast", ["position_ids"], "floats", name="/rotary/Cast", to=TensorProto.FLOAT),
        node("Unsqueeze", ["floats", "one"], "positions", name="/rotary/Unsqueeze"),
        node("MatMul", ["inv_freq", "positions"], "turned", name="/rotary/MatMul"),
        node("Transpose", ["turned"], "half", name="/rotary/Transpose", perm=[0, 2, 1]),
        node("Concat", ["half", "half"], "angle", name="/rotary/Concat", axis=-1),
        node("Cos", ["angle"], "cos", name="/rotary/Cos"),
        node("Sin", ["angle"], "sin", name="/rotary/Sin"),
        node("Mul", ["x", "cos"], "straight", name="/attention/Mul"),
        helper.make_node("Split", ["x"], ["left", "right"], axis=2, num_outputs=2),
        node("Neg", ["right"], "minus", name="/attention/Neg"),
        node("Concat", ["minus", "left"], "swapped", name="/attention/Concat", axis=-1),
        node("Mul", ["swapped", "sin"], "across", name="/attention/Mul_1"),
        node("Add", ["straight", "across"], "rotated", name="/attention/Add"),
        node("MatMul", ["rotated", "w"], "y", name="/out"),
    ]
    weights = {
        "one": np.array([1]),
        "inv_freq": FREQUENCIES.astype(np.float32).reshape(1, 16, 1),
        "w": normal(0, 32, 8, scale=0.2),
    }
    inputs = [tensor("position_ids", [1, 16], TensorProto.INT64), tensor("x", [1, 16, 32])]
    sample = {"position_ids": np.arange(4000, 4016)[None], "x": normal(1, 1, 16, 32)}
    return build_model(nodes, inputs, [tensor("y", [1, 16, 8])], weights, opset=18), sample


def perceptron(source):
    return [
        node("MatMul", [source, "w1"], "h", name="/fc1"),
        node("Tanh", ["h"], "a", name="/act"),
        node("MatMul", ["a", "w2"], "y", name="/fc2"),
    ]


def root_mean_square(scale):
    nodes = [
        node("Pow", ["x", "two"], "squares", name="/norm/Pow"),
        node("ReduceMean", ["squares", "last"], "mean", name="/norm/ReduceMean"),
        node("Add", ["mean", "epsilon"], "sum", name="/norm/Add"),
        node("Sqrt", ["sum"], "root", name="/norm/Sqrt"),
        node("Div", ["x", "root"], "normal", name="/norm/Div"),
        node("Mul", ["gamma", "normal"], "scaled", name="/norm/Mul"),
        node("MatMul", ["scaled", "w"], "y", name="/fc"),
    ]
    weights = {
        "two": scalar(2.0),
        "last": np.array([-1]),
        "epsilon": scalar(1e-6),
        "gamma": np.linspace(0.5, 1.5, 64, dtype=np.float32),
        "w": normal(0, 64, 8, scale=0.2),
    }
    model = build_model(nodes, [tensor("x", [16, 64])], [tensor("y", [16, 8])], weights, opset=18)
    return model, {"x": normal(3, 16, 64, scale=scale)}


@pytest.mark.parametrize(("precision", "tolerance"), [(FP16, 2e-3), (BF16, 1.6e-2)])
@pytest.mark.parametrize(
    ("build", "kept"),
    [
        (time_features, {"/time/Mul", "/time/Sin", "/time/Cos"}),
        (sinusoidal_positions, {"/positions/Mul", "/positions/Sin", "/positions/Cos"}),
        (rotary_embedding, {"/rotary/MatMul", "/rotary/Sin", "/rotary/Cos"}),
    ],
)
def test_the_layer_is_kept_with_its_readers(build, kept, precision, tolerance):
    model, sample = build()
    ranking = rank_model(model, [sample], precision=precision)
    request = SelectionRequest(tolerance=tolerance)

    forecast = select_constraints(ranking, request)
    measured = select_constraints(ranking, request, model=model, samples=[sample])

    assert ranking.layers[0].name in kept
    assert ranking.layers[0].impact > 0.1
    assert {layer.name for layer in forecast.layers} == kept
    assert {layer.name for layer in measured.layers} == kept
    assert measured.measured_error == pytest.approx(measured.forecast_error, rel=0.3)


def test_the_error_that_the_kept_features_of_time_leave():
    model, sample = time_features()

    error = measure_output_error(model, [sample], fp32_outputs=["angle", "sin", "cos"])

    assert 4e-4 < error < 8e-4
    assert measure_output_error(model, [sample], fp32_outputs=["angle"]) > 0.5


@pytest.mark.parametrize("scale", [1e-2, 1.0, 30.0])
def test_a_normalization_keeps_what_the_forecast_says(scale):
    model, sample = root_mean_square(scale)
    ranking = rank_model(model, [sample])

    selection = select_constraints(
        ranking, SelectionRequest(tolerance=5e-4), model=model, samples=[sample]
    )

    assert selection.measured_error <= 5e-4
    assert selection.measured_error == pytest.approx(selection.forecast_error, rel=0.3)
