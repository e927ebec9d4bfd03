"""Gradients of reductions agree with finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .finite_differences import check_rule

FUNCTIONS = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceL1": lambda x, **over: np.abs(x).sum(**over),
    "ReduceL2": lambda x, **over: np.sqrt((x * x).sum(**over)),
    "ReduceSumSquare": lambda x, **over: (x * x).sum(**over),
    "ReduceLogSum": lambda x, **over: np.log(x.sum(**over)),
    "ReduceLogSumExp": lambda x, **over: np.log(np.exp(x).sum(**over)),
}


def positive(shape, seed=0):
    return np.random.default_rng(seed).uniform(0.3, 2, shape)


@pytest.mark.parametrize("op_type", FUNCTIONS)
@settings(max_examples=15)
@given(
    axes=st.none() | st.sets(st.integers(0, 2)).map(sorted),
    keepdims=st.integers(0, 1),
    as_input=st.booleans(),
    is_negative=st.booleans(),
)
def test_reduction_matches_differences(op_type, axes, keepdims, as_input, is_negative):
    values = positive((2, 3, 4)) * (1 if op_type == "ReduceLogSum" else [1, -1, 1, 1])
    over = {"axis": tuple(axes) if axes else None, "keepdims": bool(keepdims)}
    given_axes = [a - 3 if is_negative else a for a in axes] if axes is not None else None
    attributes = {"keepdims": keepdims}
    inputs = [values]
    if given_axes is not None and as_input:
        inputs.append(np.array(given_axes, np.int64))
    elif given_axes is not None:
        attributes["axes"] = given_axes

    check_rule(
        op_type,
        inputs,
        attributes,
        opset=18 if as_input else 11,
        evaluate=lambda xs: [np.asarray(FUNCTIONS[op_type](xs[0], **over))],
    )


@pytest.mark.parametrize("op_type", FUNCTIONS)
@pytest.mark.parametrize("axes", [None, np.array([], np.int64)])
def test_reduction_over_no_axes_still_applies_its_function(op_type, axes):
    check_rule(
        op_type,
        [positive((2, 3)), axes],
        {"noop_with_empty_axes": 1},
        opset=18,
        evaluate=lambda xs: [np.asarray(FUNCTIONS[op_type](xs[0], axis=(), keepdims=True))],
    )


@pytest.mark.parametrize("zeros", [1, 2])
def test_product_with_zeros_matches_differences(zeros):
    values = positive((2, 4))
    values[0, :zeros] = 0

    check_rule("ReduceProd", [values], {"axes": [1]}, opset=13)


def test_reduction_of_a_scalar_matches_differences():
    check_rule("ReduceSum", [np.array(1.5)], opset=13)


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_running_sum_matches_differences(exclusive, reverse, axis):
    attributes = {"exclusive": exclusive, "reverse": reverse}

    check_rule("CumSum", [positive((3, 4)), np.array(axis, np.int64)], attributes, opset=14)


def test_running_sum_is_inclusive_and_forward_unless_told_otherwise():
    inputs = [positive((3, 4)), np.array(1, np.int64)]

    check_rule("CumSum", inputs, opset=14, evaluate=lambda xs: [xs[0].cumsum(axis=1)])
