"""Gradients of operators that read or write by index agree with finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraphy_layerprec.divergence.rules import Application, find_rule

from .finite_differences import check_rule


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@settings(max_examples=25)
@given(
    axis=st.integers(-3, 2),
    shape=st.lists(st.integers(1, 3), max_size=2),
    seed=st.integers(0, 99),
)
def test_gather_matches_differences(axis, shape, seed):
    values = normal(3, 4, 5)
    size = values.shape[axis]
    indices = np.random.default_rng(seed).integers(-size, size, shape)

    check_rule("Gather", [values, np.asarray(indices)], {"axis": axis}, opset=13)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_gather_elements_matches_differences(axis):
    indices = np.random.default_rng(0).integers(-2, 2, (2, 3, 2))

    def evaluate(xs):
        places = list(np.indices(indices.shape))
        places[axis] = indices
        return [xs[0][tuple(places)]]

    inputs = [normal(2, 3, 4), indices]
    check_rule("GatherElements", inputs, {"axis": axis}, opset=13, evaluate=evaluate)


@pytest.mark.parametrize(
    ("batch_dims", "index_shape"),
    [(0, (4, 1)), (0, (2, 2, 2)), (0, (5, 3)), (1, (2, 3, 1)), (1, (2, 1)), (2, (2, 3, 1))],
)
def test_gather_nd_matches_differences(batch_dims, index_shape):
    indices = np.random.default_rng(1).integers(-2, 2, index_shape)

    check_rule("GatherND", [normal(2, 3, 4), indices], {"batch_dims": batch_dims}, opset=13)


@pytest.mark.parametrize("reduction", ["none", "add"])
@pytest.mark.parametrize(
    "indices", [[[0], [2]], [[-1]], [[[0, 1], [1, 3]], [[2, 0], [2, -1]]], [[0, 1, 2], [1, 1, 1]]]
)
def test_scatter_nd_matches_differences(reduction, indices):
    indices = np.array(indices)
    updates = normal(*indices.shape[:-1], *(3, 4, 5)[indices.shape[-1] :], seed=1)

    check_rule("ScatterND", [normal(3, 4, 5), indices, updates], {"reduction": reduction}, opset=16)


def test_repeated_additions_each_receive_the_gradient():
    indices, updates = np.array([[1], [1], [0]]), normal(3, 2, seed=1)

    check_rule("ScatterND", [normal(3, 2), indices, updates], {"reduction": "add"}, opset=16)


@pytest.mark.parametrize("reduction", ["none", "add"])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("op_type", ["ScatterElements", "Scatter"])
def test_scatter_elements_matches_differences(reduction, axis, op_type):
    indices = np.argsort(normal(3, 3, seed=2), axis=axis)[:2, :]
    attributes = {"axis": axis}
    if op_type == "ScatterElements":
        attributes["reduction"] = reduction
    updates = normal(2, 3, seed=1)

    def evaluate(xs):
        result = xs[0].copy()
        for place in np.ndindex(*indices.shape):
            target = list(place)
            target[axis] = indices[place]
            is_added = attributes.get("reduction") == "add"
            result[tuple(target)] = xs[2][place] + (result[tuple(target)] if is_added else 0)
        return [result]

    inputs = [normal(3, 4), indices, updates]
    opset = 18 if op_type == "ScatterElements" else 10
    check_rule(op_type, inputs, attributes, opset=opset, evaluate=evaluate)


@pytest.mark.parametrize("reduction", ["mul", "max", "min"])
def test_other_scatter_reductions_are_left_to_the_caller(reduction):
    shapes = [(3, 2), (1, 1), (1, 2)]
    node = Application(
        "ScatterND",
        18,
        {"reduction": reduction},
        [None, np.array([[1]]), None],
        [None],
        shapes,
        [(3, 2)],
        frozenset({0, 2}),
    )

    gradients = find_rule("ScatterND", "", 18).apply(node, [np.ones((3, 2), np.float32)])

    assert gradients == [None] * 3


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("largest", [0, 1])
def test_top_values_match_differences(axis, largest):
    inputs = [normal(3, 4, 5), np.array([2])]

    check_rule("TopK", inputs, {"axis": axis, "largest": largest}, opset=11, outputs=2)
