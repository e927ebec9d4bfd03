"""Gradients of pooling agree with finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from polygraphy_layerprec.divergence.rules import Application, find_rule

from .finite_differences import check_rule

LAYOUTS = [
    {"kernel_shape": [2, 2]},
    {"kernel_shape": [2, 2], "strides": [2, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [0, 1, 2, 0]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "strides": [3, 3], "pads": [1, 0, 0, 1], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "dilations": [2, 3]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [4, 2], "strides": [3, 3], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": "VALID"},
]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def shuffled(*shape):
    """Returns values so far apart that no difference changes which of them is the largest."""
    return (
        np.random.default_rng(0).permutation(np.arange(np.prod(shape), dtype=float)).reshape(shape)
    )


@pytest.mark.parametrize("attributes", LAYOUTS)
def test_max_pool_matches_differences(attributes):
    check_rule("MaxPool", [shuffled(2, 3, 6, 7)], attributes, uses_onnxruntime=True)


def test_max_pool_that_also_puts_out_indices_matches_differences():
    attributes = {"kernel_shape": [2, 2]}

    check_rule("MaxPool", [shuffled(1, 2, 5, 5)], attributes, outputs=2, uses_onnxruntime=True)


@pytest.mark.parametrize("shape", [(1, 2, 7), (1, 2, 4, 4, 3)])
def test_max_pool_over_one_and_three_axes_matches_differences(shape):
    rank = len(shape) - 2
    attributes = {"kernel_shape": [2] * rank, "pads": [1] * (2 * rank)}

    check_rule("MaxPool", [shuffled(*shape)], attributes, uses_onnxruntime=True)


def test_max_pool_of_equal_values_passes_the_gradient_on_once():
    values = np.zeros((1, 1, 2, 2), np.float32)
    output = np.zeros((1, 1, 1, 1), np.float32)
    node = Application(
        "MaxPool",
        12,
        {"kernel_shape": [2, 2]},
        [values],
        [output],
        [values.shape],
        [output.shape],
        frozenset({0}),
    )

    (gradient,) = find_rule("MaxPool", "", 12).apply(node, [np.ones((1, 1, 1, 1), np.float32)])

    assert gradient.ravel().tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("attributes", LAYOUTS)
@pytest.mark.parametrize("count_include_pad", [0, 1])
def test_average_pool_matches_differences(attributes, count_include_pad):
    attributes = {**attributes, "count_include_pad": count_include_pad}

    check_rule("AveragePool", [normal(2, 3, 6, 7)], attributes, uses_onnxruntime=True)


@settings(max_examples=40)
@given(
    op_type=st.sampled_from(["MaxPool", "AveragePool"]),
    size=st.integers(4, 9),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    pads=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    ceil_mode=st.integers(0, 1),
    count_include_pad=st.integers(0, 1),
)
def test_pooling_of_any_layout_matches_differences(
    op_type, size, kernel, stride, dilation, pads, ceil_mode, count_include_pad
):
    assume(max(pads) < kernel and (kernel - 1) * dilation < size)
    attributes = {
        "kernel_shape": [kernel],
        "strides": [stride],
        "dilations": [dilation],
        "pads": list(pads),
        "ceil_mode": ceil_mode,
    }
    if op_type == "AveragePool":
        attributes["count_include_pad"] = count_include_pad

    check_rule(
        op_type,
        [normal(1, 2, size)],
        attributes,
        evaluate=lambda xs: [pool(xs[0], op_type, attributes)],
    )


@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    ],
)
def test_lp_pool_matches_differences(power, attributes):
    check_rule("LpPool", [normal(1, 2, 5, 6)], {**attributes, "p": power})


@pytest.mark.parametrize("op_type", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 4), (1, 1, 2, 2, 2)])
def test_global_pool_matches_differences(op_type, shape):
    function = np.mean if op_type == "GlobalAveragePool" else np.max
    space = tuple(range(2, len(shape)))

    check_rule(
        op_type,
        [normal(*shape)],
        evaluate=lambda xs: [function(xs[0], axis=space, keepdims=True)],
    )


@pytest.mark.parametrize("op_type", ["GlobalMaxPool", "ReduceMax"])
def test_equal_largest_values_share_the_gradient(op_type):
    values, output = np.array([[[1, 3, 3]]], np.float32), np.full((1, 1, 1), 3, np.float32)
    node = Application(
        op_type,
        13,
        {"axes": [2]},
        [values],
        [output],
        [values.shape],
        [output.shape],
        frozenset({0}),
    )

    (gradient,) = find_rule(op_type, "", 13).apply(node, [np.ones((1, 1, 1), np.float32)])

    assert gradient.ravel().tolist() == [0, 0.5, 0.5]


@pytest.mark.parametrize("power", [1, 2, 3])
def test_global_lp_pool_matches_differences(power):
    def evaluate(xs):
        return [(np.abs(xs[0]) ** power).sum(axis=(2, 3), keepdims=True) ** (1 / power)]

    check_rule("GlobalLpPool", [normal(2, 3, 4, 5)], {"p": power}, evaluate=evaluate)


def pool(values, op_type, attributes):
    """Pools one axis in the plainest way: padding counts where asked, what lies beyond never."""
    (kernel,), (stride,), (dilation,) = (
        attributes[k] for k in ("kernel_shape", "strides", "dilations")
    )
    begin, end = attributes["pads"]
    size = values.shape[-1]
    span = size + begin + end - (kernel - 1) * dilation - 1
    count = (-(-span // stride) if attributes["ceil_mode"] else span // stride) + 1
    # A window may start in the padding before, not in that after.
    count -= (count - 1) * stride >= size + begin
    columns = []
    for window in range(count):
        places = window * stride + np.arange(kernel) * dilation - begin
        inside = values[..., places[(places >= 0) & (places < size)]]
        counted = (places >= -begin) & (places < size + end)
        if op_type == "MaxPool":
            columns.append(inside.max(axis=-1))
        elif attributes["count_include_pad"]:
            columns.append(inside.sum(axis=-1) / counted.sum())
        else:
            columns.append(inside.mean(axis=-1))
    return np.stack(columns, axis=-1)
