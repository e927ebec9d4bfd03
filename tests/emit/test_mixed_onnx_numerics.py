"""What lowering does to values: rounding, clamping and flushing, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from polygraphy_layerprec.emit.mixed_onnx import lower_model
from polygraphy_layerprec.emit.mixed_onnx.weights import low_tensor
from polygraphy_layerprec.precision import BF16, FP16
from tests.emit.onnx_zoo import ZOO, feeds, float_value, make_model, random_weights


def _initializers(model):
    return {tensor.name: tensor for tensor in model.graph.initializer}


def test_lowered_product_is_rounded_as_the_format_says():
    model = make_model(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        [float_value("x", 64)],
        [float_value("y", 64)],
        random_weights(w=(64,)),
        opset=13,
    )
    x = feeds(model)["x"]
    w = random_weights(w=(64,))["w"]

    mixed, _ = lower_model(model, ())

    (y,) = ReferenceEvaluator(mixed).run(None, {"x": x})
    exact = x.astype(np.float16).astype(np.float64) * w.astype(np.float16).astype(np.float64)
    np.testing.assert_array_equal(y, exact.astype(np.float16).astype(np.float32))


def test_lowered_network_errs_by_half_precision_and_kept_one_by_single():
    model = ZOO["multilayer perceptron"]()
    x = feeds(model)["x"]
    w = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    hidden = np.maximum(x.astype(np.float64) @ w["w1"] + w["b1"], 0)
    exact = 1 / (1 + np.exp(-(hidden @ w["w2"])))
    errors = {}
    for name, kept in (("low", ()), ("kept", ["h1", "h2", "h4", "y"])):
        mixed, _ = lower_model(model, kept)
        (y,) = ReferenceEvaluator(mixed).run(None, {"x": x})
        errors[name] = np.linalg.norm(y - exact) / np.linalg.norm(exact)

    assert 2.0**-14 < errors["low"] < 8 * 2.0**-11
    assert errors["kept"] < 8 * 2.0**-24


@pytest.mark.parametrize(
    ("precision", "values", "clamped", "flushed"),
    [
        # 65520 is halfway to the next binade and rounds away; 2**-25 is halfway to zero and ties.
        (FP16, [65504, 65519, 65520, -3.4e38, np.inf, np.nan], 2, 0),
        (FP16, [2.0**-25, -(2.0**-26), 2.0**-25 * 1.01, 0.0, -0.0], 0, 2),
        (BF16, [3.4028235e38, -3.38e38, np.inf, 1e-9, 0.0], 1, 0),
        (BF16, [2.0**-134, 2.0**-133], 0, 1),
    ],
)
def test_clamped_and_flushed_values_are_counted(precision, values, clamped, flushed):
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    size = len(values)
    weights = {"w": np.array(values, np.float32)}
    model = make_model(nodes, [float_value("x", size)], [float_value("y", size)], weights, opset=13)

    mixed, summary = lower_model(model, (), precision=precision)

    assert (summary.converted, summary.clamped, summary.flushed) == (1, clamped, flushed)
    lowered = numpy_helper.to_array(_initializers(mixed)["w"]).astype(np.float32)
    finite = np.isfinite(weights["w"])
    assert np.isfinite(lowered[finite]).all()
    assert np.max(np.abs(lowered[finite])) <= precision.max_finite


@settings(max_examples=100)
@given(hnp.arrays(np.float32, 17, elements=st.floats(width=32)))
def test_encoded_weights_are_numpys_but_for_the_clamping(values):
    raw = low_tensor(values, "w", FP16).raw_data

    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    overflows = np.isinf(expected) & np.isfinite(values)
    expected[overflows] = np.copysign(np.float16(65504), values[overflows])
    np.testing.assert_array_equal(np.frombuffer(raw, np.float16), expected)
