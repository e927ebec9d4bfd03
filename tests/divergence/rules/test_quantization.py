"""Gradients pass straight through changes of representation."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from polygraphy_layerprec.divergence.rules import Application, find_rule
from tests.divergence.rules.finite_differences import check_rule


@pytest.mark.parametrize("op_type", ["Identity", "Cast", "Dropout", "Ceil", "Floor", "Round"])
def test_change_of_representation_passes_the_gradient_on(op_type):
    gradient = np.array([1.0, -2.0], np.float32)

    (result,) = apply(op_type, [None], {}, [gradient])

    np.testing.assert_array_equal(result, gradient)


@pytest.mark.parametrize(
    ("shape", "scale_shape", "attributes"),
    [
        ((2, 3, 4), (), {}),
        ((2, 3, 4), (1,), {}),
        ((2, 3, 4), (3,), {}),
        ((2, 3, 4), (4,), {"axis": -1}),
        ((2, 3, 5), (2, 3, 3), {"axis": 2, "block_size": 2}),
    ],
)
def test_quantizing_and_dequantizing_passes_the_gradient_on(shape, scale_shape, attributes):
    generator = np.random.default_rng(0)
    gradient = generator.standard_normal(shape).astype(np.float32)
    scale = generator.uniform(0.01, 0.1, scale_shape).astype(np.float32)

    values = np.full(shape, 0.5, np.float32)
    (at_integers, _) = apply("DequantizeLinear", [None, scale], attributes, [gradient])
    (at_floats, _) = apply("QuantizeLinear", [values, scale], attributes, [at_integers])

    assert at_integers.dtype == at_floats.dtype == np.float32
    np.testing.assert_allclose(at_floats, gradient, rtol=1e-6)


@pytest.mark.parametrize(
    ("scale", "attributes", "expected"),
    [
        ([0.5, 4.0], {"axis": 0}, [[0.5, 0.5], [4.0, 4.0]]),
        ([0.5, 4.0], {}, [[0.5, 4.0], [0.5, 4.0]]),
        ([[0.5], [4.0]], {"axis": 1, "block_size": 2}, [[0.5, 0.5], [4.0, 4.0]]),
    ],
)
def test_dequantizing_scales_the_gradient(scale, attributes, expected):
    ones = np.ones((2, 2), np.float32)

    (result, _) = apply("DequantizeLinear", [None, np.array(scale, np.float32)], attributes, [ones])

    np.testing.assert_array_equal(result, expected)


def test_dynamic_quantization_divides_by_the_scale_put_out():
    gradient, scale = np.ones(2, np.float32), np.array(0.25, np.float32)
    node = Application(
        "DynamicQuantizeLinear",
        11,
        {},
        [None],
        [None, scale, None],
        [(2,)],
        [(2,), (), ()],
        frozenset({0}),
    )

    (result,) = find_rule("DynamicQuantizeLinear", "", 11).apply(node, [gradient, None, None])

    assert result.tolist() == [4, 4]


def clipped_steps(low, high):
    """Quantization without its rounding, which is what a gradient goes by."""

    def evaluate(inputs):
        values, scale, zero = (np.asarray(each, np.float64) for each in inputs)
        return [np.clip(values / scale + zero, low - 0.5, high + 0.5)]

    return evaluate


@pytest.mark.parametrize(
    ("kind", "zero", "low", "high"),
    [
        (np.int8, 3, -128, 127),
        (np.uint8, 100, 0, 255),
        (np.int16, 0, -32768, 32767),
        (ml_dtypes.int4, -2, -8, 7),
        (ml_dtypes.uint4, 8, 0, 15),
    ],
)
def test_quantizing_is_the_line_through_its_steps_and_moves_nothing_beyond_them(
    kind, zero, low, high
):
    values = np.random.default_rng(0).standard_normal((4, 50)) * 0.6 * (high - low)
    inputs = [values, np.array(1.3), np.array(zero, kind)]
    assert np.any(clipped_steps(low, high)(inputs)[0] == high + 0.5)

    check_rule("QuantizeLinear", inputs, evaluate=clipped_steps(low, high), opset=21)


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        (ml_dtypes.float8_e4m3fn, 448.0),
        (ml_dtypes.float8_e5m2, 57344.0),
        (ml_dtypes.float8_e4m3fnuz, 240.0),
        (ml_dtypes.float4_e2m1fn, 6.0),
    ],
)
def test_the_range_of_narrow_floats_ends_at_their_largest_number(kind, most):
    assert float(ml_dtypes.finfo(kind).max) == most
    values = np.array([-1.01, -0.99, 0.5, 0.99, 1.01]) * most * 0.1
    inputs = [values, np.array(0.1, np.float32), np.array(0.0, kind)]
    gradient = np.ones(5)

    (at_floats, *_) = apply("QuantizeLinear", inputs, {}, [gradient])

    np.testing.assert_allclose(at_floats, [0.0, 10.0, 10.0, 10.0, 0.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("output_dtype", "low", "high"), [(0, 0, 255), (3, -128, 127), (22, -8, 7), (26, -2, 1)]
)
def test_without_a_zero_point_the_type_asked_for_gives_the_range(output_dtype, low, high):
    values = np.array([low - 1.0, low + 0.5, high - 0.5, high + 1.0])
    attributes = {"output_dtype": output_dtype} if output_dtype else {}

    (at_floats, *_) = apply("QuantizeLinear", [values, np.ones(())], attributes, [np.ones(4)])

    assert at_floats.tolist() == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("scale_shape", "attributes"),
    [((), {}), ((3,), {}), ((4,), {"axis": -1}), ((2, 3, 2), {"axis": 2, "block_size": 3})],
)
def test_the_gradient_of_a_scale_is_that_of_the_integers_times_it(scale_shape, attributes):
    """With the product of both, a computed scale leaves what it divides as it was."""
    generator = np.random.default_rng(1)
    integers = generator.integers(-100, 100, (2, 3, 4)).astype(np.int8)
    scale = generator.uniform(0.01, 0.1, scale_shape)

    def evaluate(inputs):
        quantized, steps = inputs
        axis = attributes.get("axis", 1)
        if attributes.get("block_size"):
            wide = np.repeat(steps, 3, axis=axis)[..., :4]
        elif np.ndim(steps):
            wide = steps.reshape([-1 if i == axis % 3 else 1 for i in range(3)])
        else:
            wide = steps
        return [quantized * wide]

    check_rule("DequantizeLinear", [integers, scale], attributes, evaluate=evaluate)


def test_a_cast_to_the_type_of_another_tensor_takes_nothing_of_its_values():
    gradient = np.array([1.0, -2.0], np.float32)
    node = Application(
        "CastLike", 19, {}, [None, None], [None], [(2,), (3,)], [(2,)], frozenset({0, 1})
    )

    (by_values, by_other) = find_rule("CastLike", "", 19).apply(node, [gradient])

    np.testing.assert_array_equal(by_values, gradient)
    np.testing.assert_array_equal(by_other, np.zeros(3))


def apply(op_type, inputs, attributes, gradients):
    shape = gradients[0].shape
    node = Application(
        op_type,
        21,
        attributes,
        inputs,
        [None],
        [shape if x is None else x.shape for x in inputs],
        [shape],
        frozenset({0}),
    )
    return find_rule(op_type, "", 21).apply(node, gradients)
