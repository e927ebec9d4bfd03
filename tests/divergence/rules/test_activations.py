"""Gradients of activation functions agree with finite differences."""

from __future__ import annotations

from math import erf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraphy_layerprec.divergence.rules import Application, find_rule

from .finite_differences import check_rule

ACTIVATIONS = [
    ("Relu", {}),
    ("LeakyRelu", {}),
    ("LeakyRelu", {"alpha": -0.3}),
    ("Elu", {}),
    ("Elu", {"alpha": -0.7}),
    ("Selu", {}),
    ("Selu", {"alpha": 1.2, "gamma": 0.8}),
    ("Celu", {"alpha": 2.5}),
    ("ThresholdedRelu", {}),
    ("ThresholdedRelu", {"alpha": 0.4}),
    ("Shrink", {"lambd": 0.7, "bias": 0.2}),
    ("HardSigmoid", {}),
    ("HardSigmoid", {"alpha": 0.5, "beta": 0.3}),
    ("HardSwish", {}),
    ("Mish", {}),
    ("Gelu", {"approximate": "tanh"}),
]


@pytest.mark.parametrize(("op_type", "attributes"), ACTIVATIONS)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_activation_matches_differences(op_type, attributes, seed):
    values = 2 * np.random.default_rng(seed).standard_normal((3, 4, 5))

    check_rule(op_type, [values], attributes, seed=seed)


@pytest.mark.parametrize("seed", range(4))
def test_exact_gelu_matches_differences(seed):
    values = 2 * np.random.default_rng(seed).standard_normal((3, 4, 5))

    # The reference evaluator rounds erf to float32.
    check_rule("Gelu", [values], evaluate=lambda xs: [gelu(xs[0])], seed=seed)


@pytest.mark.parametrize("alpha", [1.0, 1.7, -0.5])
def test_swish_matches_differences(alpha):
    values = 3 * np.random.default_rng(3).standard_normal((4, 5))

    check_rule(
        "Swish",
        [values],
        {"alpha": alpha},
        opset=24,
        evaluate=lambda xs: [xs[0] / (1 + np.exp(-alpha * xs[0]))],
    )


@pytest.mark.parametrize("slope_shape", [(3, 4), (1,), (4,), (3, 1)])
def test_parametric_relu_matches_differences(slope_shape):
    generator = np.random.default_rng(4)
    values, slope = generator.standard_normal((2, 3, 4)), generator.standard_normal(slope_shape)

    check_rule("PRelu", [values, slope], opset=16)


@pytest.mark.parametrize("op_type", ["Gelu", "FastGelu", "BiasGelu", "QuickGelu"])
def test_onnxruntime_gelu_matches_differences(op_type):
    generator = np.random.default_rng(5)
    values, bias = 2 * generator.standard_normal((3, 4)), generator.standard_normal(4)
    inputs = [values, bias] if op_type in ("FastGelu", "BiasGelu") else [values]

    def evaluate(xs):
        x = sum(xs)
        if op_type == "QuickGelu":
            return [x / (1 + np.exp(-1.702 * x))]
        if op_type == "FastGelu":
            return [0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))]
        return [gelu(x)]

    check_rule(op_type, inputs, domain="com.microsoft", opset=1, evaluate=evaluate)


@pytest.mark.parametrize("op_type", ["Mish", "Gelu", "Swish", "Elu", "Softplus"])
def test_activation_far_from_zero_is_a_line_or_flat(op_type):
    values = np.array([-500.0, 500.0], np.float32)
    node = Application(
        op_type, 24, {}, [values], [np.maximum(values, 0)], [(2,)], [(2,)], frozenset({0})
    )

    (gradient,) = find_rule(op_type, "", 24).apply(node, [np.ones(2, np.float32)])

    np.testing.assert_allclose(gradient, [0, 1], atol=1e-6)


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_softmax_along_an_axis_matches_differences(op_type, axis):
    values = np.random.default_rng(6).standard_normal((3, 4, 5))

    check_rule(op_type, [values], {} if axis is None else {"axis": axis}, opset=13)


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, -2])
def test_old_softmax_normalizes_all_axes_from_its_own_on(op_type, axis):
    values = np.random.default_rng(7).standard_normal((2, 3, 4))
    first = 1 if axis is None else axis % 3

    def evaluate(xs):
        x = xs[0].reshape(int(np.prod(xs[0].shape[:first])), -1)
        logarithm = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
        result = np.exp(logarithm) if op_type == "Softmax" else logarithm
        return [result.reshape(xs[0].shape)]

    attributes = {} if axis is None else {"axis": axis}
    check_rule(op_type, [values], attributes, opset=11, evaluate=evaluate)


def gelu(values):
    return 0.5 * values * (1 + np.vectorize(erf)(values / np.sqrt(2)))
