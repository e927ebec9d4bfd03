"""Gradients of operators that only move elements agree with finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraphy_layerprec.divergence.rules import Application, find_rule

from .finite_differences import check_rule


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def integers(*values):
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "opset"),
    [
        ("Reshape", [normal(2, 6), integers(3, -1)], {}, 14),
        ("Flatten", [normal(2, 3, 4)], {"axis": 2}, 13),
        ("Squeeze", [normal(2, 1, 4, 1), integers(1)], {}, 13),
        ("Squeeze", [normal(2, 1, 4, 1)], {}, 13),
        ("Squeeze", [normal(2, 1, 4, 1)], {"axes": [1]}, 11),
        ("Unsqueeze", [normal(2, 4), integers(0, -1)], {}, 13),
        ("Unsqueeze", [normal(2, 4)], {"axes": [1]}, 11),
        ("Transpose", [normal(2, 3, 4)], {}, 13),
        ("Transpose", [normal(2, 3, 4)], {"perm": [2, 0, 1]}, 13),
        ("Expand", [normal(3, 1), integers(2, 1, 4)], {}, 13),
        ("Expand", [normal(3, 4), integers(1)], {}, 13),
        ("Tile", [normal(2, 3), integers(2, 3)], {}, 13),
        ("Concat", [normal(2, 3), normal(2, 1), normal(2, 2)], {"axis": -1}, 13),
        ("Concat", [normal(2, 3), normal(4, 3)], {"axis": 0}, 13),
        ("Trilu", [normal(2, 3, 4)], {}, 14),
        ("Trilu", [normal(3, 4), integers(1)[0]], {"upper": 0}, 14),
        ("Trilu", [normal(3, 4), integers(-1)[0]], {"upper": 1}, 14),
        ("DepthToSpace", [normal(2, 12, 2, 3)], {"blocksize": 2}, 13),
        ("DepthToSpace", [normal(2, 12, 2, 3)], {"blocksize": 2, "mode": "CRD"}, 13),
        ("SpaceToDepth", [normal(2, 3, 4, 6)], {"blocksize": 2}, 13),
        ("ReverseSequence", [normal(4, 3, 2), integers(4, 1, 2)], {}, 10),
        (
            "ReverseSequence",
            [normal(3, 4), integers(4, 2, 3)],
            {"batch_axis": 0, "time_axis": 1},
            10,
        ),
        ("CenterCropPad", [normal(5, 4, 3), integers(2, 7, 3)], {}, 18),
        ("CenterCropPad", [normal(4, 5), integers(7, 2)], {}, 18),
        ("CenterCropPad", [normal(4, 5, 3), integers(2)], {"axes": [1]}, 18),
        ("Compress", [normal(3, 4), np.array([True, False, True])], {"axis": 0}, 11),
        ("Compress", [normal(3, 4), np.array([False, True])], {"axis": 1}, 11),
        ("Compress", [normal(3, 4), np.array([False, True, True, False, True])], {}, 11),
    ],
)
def test_movement_matches_differences(op_type, inputs, attributes, opset):
    check_rule(op_type, inputs, attributes, opset=opset)


@pytest.mark.parametrize("sizes", [[2, 1, 3], None])
def test_split_matches_differences(sizes):
    inputs = [normal(2, 6), None if sizes is None else integers(*sizes)]

    check_rule("Split", inputs, {"axis": 1}, opset=13, outputs=3)


def test_split_of_which_one_part_is_not_used_has_zeros_there():
    node = Application("Split", 13, {}, [None], [None, None], [(3,)], [(1,), (2,)], frozenset({0}))

    (gradient,) = find_rule("Split", "", 13).apply(node, [None, np.ones(2, np.float32)])

    assert gradient.tolist() == [0, 1, 1]


@settings(max_examples=60)
@given(
    start=st.integers(-9, 9) | st.just(2**31),
    end=st.integers(-9, 9) | st.sampled_from([2**31, -(2**31)]),
    step=st.sampled_from([1, 2, 3, -1, -2]),
    axis=st.integers(-2, 1),
)
def test_slice_matches_differences(start, end, step, axis):
    inputs = [normal(3, 6), *map(integers, (start, end, axis, step))]

    check_rule(
        "Slice", inputs, opset=13, evaluate=lambda xs: [slice_of(xs[0], start, end, step, axis)]
    )


def test_slice_by_attributes_matches_differences():
    check_rule(
        "Slice",
        [normal(3, 6)],
        {"starts": [1], "ends": [-1], "axes": [1]},
        opset=9,
        evaluate=lambda xs: [xs[0][:, 1:-1]],
    )


def test_slice_of_the_leading_axes_needs_no_axes():
    check_rule("Slice", [normal(3, 6), integers(1, 2), integers(3, 5)], opset=13)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@pytest.mark.parametrize("pads", [(1, 0, 2, 3), (0, 0, 0, 0), (2, 3, 1, 1)])
def test_padding_matches_differences(mode, pads):
    inputs = [normal(4, 5), integers(*pads)]

    check_rule("Pad", inputs, {"mode": mode}, opset=19)


def test_padding_of_chosen_axes_matches_differences():
    inputs = [normal(2, 3, 4), integers(1, 2), np.array(0.5), integers(-1)]

    check_rule("Pad", inputs, {"mode": "constant"}, opset=19, wanted=[0])


@pytest.mark.parametrize("pads", [[0, -1, 0, 2], [1, -1, -2, 0]])
def test_negative_padding_crops(pads):
    def evaluate(xs):
        inner = xs[0]
        for axis in (0, 1):
            begin, end = pads[axis], pads[axis + 2]
            kept = slice(max(-begin, 0), inner.shape[axis] - max(-end, 0))
            inner = inner[kept] if axis == 0 else inner[:, kept]
        return [np.pad(inner, [(max(pads[a], 0), max(pads[a + 2], 0)) for a in (0, 1)])]

    check_rule("Pad", [normal(4, 5)], {"pads": pads}, opset=2, evaluate=evaluate)


def slice_of(values, start, end, step, axis):
    """Returns what the ONNX specification says: clamp both ends, then step."""
    size = values.shape[axis]
    start, end = (x + size if x < 0 else x for x in (start, end))
    low, high = (0, size) if step > 0 else (0, size - 1)
    start = min(max(start, low), high)
    end = min(max(end, low if step > 0 else -1), high if step > 0 else size - 1)
    return np.take(values, range(start, end, step), axis=axis)
