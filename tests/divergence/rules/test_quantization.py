"""Gradients pass straight through changes of representation."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.divergence.rules import Application, find_rule


@pytest.mark.parametrize("op_type", ["Identity", "Cast", "CastLike", "Dropout"])
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

    (at_integers, _) = apply("DequantizeLinear", [None, scale], attributes, [gradient])
    (at_floats, _) = apply("QuantizeLinear", [None, scale], attributes, [at_integers])

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
