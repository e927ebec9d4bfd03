"""Gradients of convolutions agree with finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .finite_differences import check_rule

generator = np.random.default_rng(0)


def normal(*shape):
    return generator.standard_normal(shape)


@st.composite
def convolutions(draw, *, is_transposed=False):
    """Draws inputs and attributes of a convolution with at least one output position."""
    rank = draw(st.integers(1, 2))
    group, per_group_in, per_group_out = (draw(st.integers(1, 3)) for _ in range(3))

    def each(low, high):
        return [draw(st.integers(low, high)) for _ in range(rank)]

    kernel, strides, dilations = each(1, 3), each(1, 3), each(1, 2)
    pads = [min(p, k - 1) for p, k in zip(each(0, 2) + each(0, 2), kernel * 2, strict=True)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = (
        each(3, 4)
        if is_transposed
        else [r + extra for r, extra in zip(reach, each(0, 5), strict=True)]
    )
    channels_in, channels_out = group * per_group_in, group * per_group_out
    weights = normal(channels_out, per_group_in, *kernel)
    if is_transposed:
        weights = normal(channels_in, per_group_out, *kernel)
    attributes = {"strides": strides, "dilations": dilations, "pads": pads, "group": group}
    inputs = [normal(draw(st.integers(1, 2)), channels_in, *sizes), weights, normal(channels_out)]
    return inputs, attributes


@settings(max_examples=40)
@given(drawn=convolutions())
def test_convolution_matches_differences(drawn):
    inputs, attributes = drawn

    check_rule("Conv", inputs, attributes, evaluate=lambda xs: [correlate(xs, attributes)])


@pytest.mark.parametrize(
    ("attributes", "group", "kernel"),
    [
        ({}, 1, (3, 3)),
        ({"pads": [1, 1, 1, 1]}, 1, (3, 3)),
        ({"strides": [2, 2], "pads": [1, 0, 0, 1]}, 2, (3, 2)),
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, 1, (3, 3)),
        ({"auto_pad": "SAME_LOWER", "strides": [2, 2]}, 1, (2, 4)),
        ({"auto_pad": "VALID"}, 4, (3, 3)),
        ({}, 1, (1, 1)),
        ({"strides": [2, 2]}, 1, (1, 1)),
    ],
)
def test_convolution_matches_differences_of_the_reference(attributes, group, kernel):
    inputs = [normal(2, 4, 6, 7), normal(8, 4 // group, *kernel), normal(8)]

    check_rule("Conv", inputs, {**attributes, "group": group, "kernel_shape": list(kernel)})


def test_convolution_over_three_axes_without_bias_matches_differences():
    inputs, attributes = [normal(1, 2, 3, 4, 3), normal(3, 2, 2, 2, 2)], {"pads": [1] * 6}

    check_rule("Conv", inputs, attributes)


@settings(max_examples=40)
@given(drawn=convolutions(is_transposed=True))
def test_transposed_convolution_matches_differences(drawn):
    inputs, attributes = drawn

    check_rule("ConvTranspose", inputs, attributes, evaluate=lambda xs: [scatter(xs, attributes)])


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 3], "pads": [1, 0, 1, 2]},
        {"strides": [2, 3], "output_padding": [1, 2]},
        {"strides": [2, 2], "output_shape": [8, 8]},
        {"strides": [2, 2], "output_shape": [8, 8], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "output_shape": [6, 7], "output_padding": [1, 0]},
        {"auto_pad": "VALID", "strides": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"dilations": [2, 2]},
    ],
)
def test_transposed_convolution_matches_differences_of_onnxruntime(attributes):
    inputs = [normal(1, 2, 4, 4), normal(2, 3, 3, 3), normal(3)]

    check_rule("ConvTranspose", inputs, attributes, uses_onnxruntime=True)


def correlate(inputs, attributes):
    """Convolves in the plainest way: one sum for each output position."""
    values, weights, bias = inputs
    rank, group = values.ndim - 2, attributes["group"]
    pads, strides, dilations = (attributes[k] for k in ("pads", "strides", "dilations"))
    kernel = weights.shape[2:]
    values = np.pad(values, [(0, 0)] * 2 + list(zip(pads[:rank], pads[rank:], strict=True)))
    counts = [
        (values.shape[2 + a] - (kernel[a] - 1) * dilations[a] - 1) // strides[a] + 1
        for a in range(rank)
    ]
    grouped = values.reshape(values.shape[0], group, -1, *values.shape[2:])
    split = weights.reshape(group, -1, *weights.shape[1:])
    result = np.empty((values.shape[0], weights.shape[0], *counts))
    for place in np.ndindex(*counts):
        taps = tuple(
            slice(p * s, p * s + (k - 1) * d + 1, d)
            for p, s, k, d in zip(place, strides, kernel, dilations, strict=True)
        )
        window = grouped[(..., *taps)]
        sums = np.einsum("ngcz,gmcz->ngm", _flat(window, 3), _flat(split, 3))
        result[(..., *place)] = sums.reshape(values.shape[0], -1) + bias
    return result


def scatter(inputs, attributes):
    """Transposes a convolution in the plainest way: each input position adds its kernel."""
    values, weights, bias = inputs
    rank, group = values.ndim - 2, attributes["group"]
    pads, strides, dilations = (attributes[k] for k in ("pads", "strides", "dilations"))
    kernel, counts = weights.shape[2:], values.shape[2:]
    full = [(counts[a] - 1) * strides[a] + (kernel[a] - 1) * dilations[a] + 1 for a in range(rank)]
    result = np.zeros((values.shape[0], group, weights.shape[1], *full))
    split = weights.reshape(group, -1, *weights.shape[1:])
    grouped = values.reshape(values.shape[0], group, -1, *counts)
    for place in np.ndindex(*counts):
        taps = tuple(
            slice(p * s, p * s + (k - 1) * d + 1, d)
            for p, s, k, d in zip(place, strides, kernel, dilations, strict=True)
        )
        added = np.einsum("ngc,gcmz->ngmz", grouped[(..., *place)], _flat(split, 3))
        result[(..., *taps)] += added.reshape(*added.shape[:3], *kernel)
    kept = tuple(slice(pads[a], full[a] - pads[rank + a]) for a in range(rank))
    result = result.reshape(values.shape[0], -1, *full)[(..., *kept)]
    return result + bias.reshape(-1, *[1] * rank)


def _flat(values, leading):
    return values.reshape(*values.shape[:leading], -1)
