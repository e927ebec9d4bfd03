"""Rules of the activation functions, Softmax among them."""

from __future__ import annotations

from math import pi, prod, sqrt

import numpy as np

from polygraphy_layerprec.divergence.rules.chain import chain, sum_to
from polygraphy_layerprec.divergence.rules.registry import (
    Application,
    Array,
    Gradients,
    Reads,
    single_output_rule,
)

__all__ = ["sigmoid"]

_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
_LAST_OPSET_FLATTENING = 12


def sigmoid(values: Array) -> Array:
    """Returns 1 / (1 + exp(-values)) in the dtype of `values`, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * values))


@single_output_rule("Relu", reads_outputs=True)
def _relu(application: Application, gradient: Array) -> Gradients:
    """ONNX Relu: y = max(x, 0), so dy/dx = [y > 0]."""
    return [gradient * (application.output() > 0)]


@single_output_rule("LeakyRelu", reads_inputs=Reads.ALL)
def _leaky_relu(application: Application, gradient: Array) -> Gradients:
    """ONNX LeakyRelu: y = x < 0 ? alpha x : x, so dy/dx = x < 0 ? alpha : 1."""
    alpha = application.attributes.get("alpha", 0.01)
    return [np.where(application.input(0) < 0, gradient * alpha, gradient)]


@single_output_rule("PRelu", since=7, reads_inputs=Reads.ALL)
def _prelu(application: Application, gradient: Array) -> Gradients:
    """ONNX PRelu: y = x < 0 ? slope x : x, so dy/dx = x < 0 ? slope : 1, dy/dslope = min(x, 0)."""
    values, slope = application.input(0), application.input(1)
    by_slope = None
    if 1 in application.wanted:
        by_slope = chain(gradient, np.minimum(values, 0), application.input_shape(1))
    return np.where(values < 0, gradient * slope, gradient), by_slope


@single_output_rule("Elu", "Selu", "Celu", reads_inputs=Reads.ALL)
def _exponential_unit(application: Application, gradient: Array) -> Gradients:
    """ONNX Elu, Selu, Celu: y = s (x > 0 ? x : a (e^(x/c) - 1)), dy/dx = s (x > 0 ? 1 : a/c e^(x/c))."""  # noqa: E501
    is_selu, is_celu = (application.op_type == name for name in ("Selu", "Celu"))
    alpha = application.attributes.get("alpha", _SELU_ALPHA if is_selu else 1.0)
    gamma = application.attributes.get("gamma", _SELU_GAMMA) if is_selu else 1.0
    values = application.input(0)
    width = alpha if is_celu else 1.0
    below = (alpha / width) * np.exp(np.minimum(values, 0) / width)
    return [chain(gradient, gamma * np.where(values > 0, values.dtype.type(1), below))]


@single_output_rule("ThresholdedRelu", reads_inputs=Reads.ALL)
def _thresholded_relu(application: Application, gradient: Array) -> Gradients:
    """ONNX ThresholdedRelu: y = x > alpha ? x : 0, so dy/dx = [x > alpha]."""
    return [gradient * (application.input(0) > application.attributes.get("alpha", 1.0))]


@single_output_rule("Shrink", reads_inputs=Reads.ALL)
def _shrink(application: Application, gradient: Array) -> Gradients:
    """ONNX Shrink: y = x -+ bias outside +-lambd and 0 inside, so dy/dx = [|x| > lambd]."""
    return [gradient * (np.abs(application.input(0)) > application.attributes.get("lambd", 0.5))]


@single_output_rule("HardSigmoid", reads_outputs=True)
def _hard_sigmoid(application: Application, gradient: Array) -> Gradients:
    """ONNX HardSigmoid: y = max(0, min(1, alpha x + beta)), so dy/dx = alpha [0 < y < 1]."""
    clipped = application.output()
    inside = (clipped > 0) & (clipped < 1)
    return [gradient * application.attributes.get("alpha", 0.2) * inside]


@single_output_rule("HardSwish", reads_inputs=Reads.ALL)
def _hard_swish(application: Application, gradient: Array) -> Gradients:
    """ONNX HardSwish: y = x h(x), h = max(0, min(1, x/6 + 1/2)), so dy/dx = h + x h'."""
    values = application.input(0)
    gate = np.clip(values / 6 + 0.5, 0, 1)
    inside = (gate > 0) & (gate < 1)
    return [gradient * (gate + values / 6 * inside)]


@single_output_rule("Swish", reads_inputs=Reads.ALL)
@single_output_rule("QuickGelu", domain="com.microsoft", reads_inputs=Reads.ALL)
def _swish(application: Application, gradient: Array) -> Gradients:
    """ONNX Swish: y = x s(ax), s the sigmoid, so dy/dx = s + ax s (1 - s)."""
    default = 1.702 if application.op_type == "QuickGelu" else 1.0
    scaled = application.input(0) * application.attributes.get("alpha", default)
    gate = sigmoid(scaled)
    return [gradient * (gate + scaled * gate * (1 - gate))]


@single_output_rule("Mish", reads_inputs=Reads.ALL)
def _mish(application: Application, gradient: Array) -> Gradients:
    """ONNX Mish: y = x t, t = tanh(ln(1 + e^x)), so dy/dx = t + x (1 - t^2) s(x)."""
    values = application.input(0)
    # tanh(ln(1 + e)) = n / (n + 2), n = e (e + 2); from x = 20 on it is 1 to double precision.
    power = np.exp(np.minimum(values, 20))
    numerator = power * (power + 2)
    gate = numerator / (numerator + 2)
    return [gradient * (gate + values * (1 - gate * gate) * sigmoid(values))]


@single_output_rule("Gelu", reads_inputs=Reads.ALL, takes_coarse=True)
@single_output_rule(
    *("Gelu", "BiasGelu", "FastGelu"),
    domain="com.microsoft",
    reads_inputs=Reads.ALL,
    takes_coarse=True,
)
def _gelu(application: Application, gradient: Array) -> Gradients:
    """ONNX Gelu: y = x P(x), P the normal distribution or its tanh form, so dy/dx = P + x P'."""
    values = application.input(0)
    has_bias = application.has_input(1)
    if has_bias:
        values = values + application.input(1)
    is_tanh = application.op_type == "FastGelu" or (
        application.attributes.get("approximate", "none") == "tanh"
    )
    slope = gradient * (_tanh_gelu_slope(values) if is_tanh else _gelu_slope(values))
    return [slope, sum_to(slope, application.input_shape(1)) if has_bias else None]


@single_output_rule("Softmax", "LogSoftmax", reads_outputs=True)
def _softmax(application: Application, gradient: Array) -> Gradients:
    """ONNX Softmax: dx = y (g - sum(g y)); LogSoftmax: dx = g - e^y sum(g)."""
    output = application.output()
    shape = output.shape
    axis = application.attributes.get(
        "axis", 1 if application.opset <= _LAST_OPSET_FLATTENING else -1
    )
    if application.opset <= _LAST_OPSET_FLATTENING:
        # Up to operator set 12 all dimensions from `axis` on are normalized as one.
        rows = prod(shape[: axis + len(shape) if axis < 0 else axis])
        output, gradient, axis = output.reshape(rows, -1), gradient.reshape(rows, -1), -1
    if application.op_type == "Softmax":
        weighted = gradient * output
        weighted -= output * weighted.sum(axis=axis, keepdims=True)
    else:
        weighted = gradient - np.exp(output) * gradient.sum(axis=axis, keepdims=True)
    return [weighted.reshape(shape)]


def _tanh_gelu_slope(values: Array) -> Array:
    square = values * values
    bend = np.tanh(sqrt(2 / pi) * values * (1 + 0.044715 * square))
    inner_slope = sqrt(2 / pi) * (1 + 3 * 0.044715 * square)
    slope: Array = 0.5 * (1 + bend) + 0.5 * values * (1 - bend * bend) * inner_slope
    return slope


def _gelu_slope(values: Array) -> Array:
    """Takes erf from Abramowitz and Stegun 7.1.26, whose error is below 1.5e-7 everywhere."""
    exponential = np.exp(-0.5 * values * values)
    step = 1 / (1 + (0.3275911 / sqrt(2)) * np.abs(values))
    # In place: at this size each temporary costs as much as the arithmetic.
    tail = step * 1.061405429
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail += coefficient
        tail *= step
    tail *= 0.5
    tail *= exponential
    distribution = np.where(values < 0, tail, 1 - tail)
    exponential *= values
    exponential *= 1 / sqrt(2 * pi)
    distribution += exponential
    return distribution
