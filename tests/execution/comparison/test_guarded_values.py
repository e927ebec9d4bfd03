"""Which value is told of where an output is lost, among all that low precision changes."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.execution.comparison.guarded_values import TurnedValue, guarded_values
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.plan import KeptLayers
from polygraphy_layerprec.precision import FP16
from tests.models import build_model, node, scalar, tensor

TENTH = np.float32(0.1)


def found(nodes, weights, x, *guards):
    """What is found of the nodes `guards` of a model from x to y, all others lowered."""
    model = build_model(nodes, [tensor("x", list(x.shape))], [tensor("y", None)], weights)
    graph = load_graph(model)
    members = [each for each in graph.nodes if each.name in guards]
    values = guarded_values(
        graph, {"x": x}, members, precision=FP16, others=KeptLayers.of_outputs(())
    )
    names = {each.index: each.name for each in graph.nodes}
    turned = {names[index]: value for index, value in values.turned.items()}
    return turned, values.start and values.start.name, values.is_nan


def rows(zeros=2):
    x = np.full((6, 4), TENTH)
    x[6 - zeros :] = 0
    return x


def guard(then):
    return [node("Add", ["x", "tiny"], "g", name="/guard"), *then]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_value_that_vanishes_is_told_of_before_common_ones_that_are_rounded(axis):
    nodes = guard(
        [
            node("ReduceSum", ["g", "axis"], "s", name="/sum", keepdims=0),
            node("Log", ["s"], "y", name="/Log"),
        ]
    )
    x = rows() if axis else rows().T.copy()

    turned, start, is_nan = found(
        nodes, {"tiny": scalar(1e-9), "axis": np.array([axis])}, x, "/guard"
    )

    assert turned == {"/guard": TurnedValue(np.float32(1e-9), 0.0)}
    assert (start, is_nan) == ("/Log", False)


def test_of_values_that_are_rounded_that_is_told_of_which_the_lost_element_meets():
    x = np.array([[0.1, 0.1, 0.1, 0.9999, 0.3, 0.7]], np.float32)
    nodes = [
        node("Mul", ["x", "one"], "g", name="/guard"),
        node("Sub", ["one", "g"], "q", name="/one_minus"),
        node("Reciprocal", ["q"], "y", name="/over"),
    ]

    turned, start, is_nan = found(nodes, {"one": scalar(1.0)}, x, "/guard", "/over")

    assert turned == {"/guard": TurnedValue(np.float32(0.9999), 1.0)}
    assert (start, is_nan) == ("/over", False)


def test_of_numbers_that_occur_once_that_is_told_of_which_moves_farthest():
    x = np.array([[0.1, 0.2, 0.30001, 2049.0]], np.float32)
    nodes = [node("Mul", ["x", "one"], "g", name="/guard"), node("Relu", ["g"], "y", name="/relu")]

    turned, start, is_nan = found(nodes, {"one": scalar(1.0)}, x, "/guard")

    assert turned["/guard"] == TurnedValue(2049.0, 2048.0)
    assert (start, is_nan) == (None, False)


def test_where_no_value_changes_none_is_told_of():
    nodes = [node("Neg", ["x"], "g", name="/guard"), node("Relu", ["g"], "y", name="/relu")]

    assert found(nodes, {}, np.ones((2, 2), np.float32), "/guard") == ({}, None, False)


def test_a_value_in_front_of_a_loss_of_another_shape_is_told_of_too():
    nodes = guard(
        [
            node("Reshape", ["g", "shape"], "r", name="/reshape"),
            node("Div", ["r", "r"], "y", name="/Div"),
        ]
    )
    weights = {"tiny": scalar(1e-9), "shape": np.array([3, 8])}

    turned, start, is_nan = found(nodes, weights, rows(1), "/guard")

    assert turned == {"/guard": TurnedValue(np.float32(1e-9), 0.0)}
    assert (start, is_nan) == ("/Div", True)


def test_what_is_no_tensor_of_floats_or_missing_is_passed_over():
    nodes = guard(
        [
            node("Greater", ["g", "zero"], "b", name="/above"),
            node("Cast", ["b"], "f", name="/cast", to=1),
            node("NonZero", ["g"], "n", name="/places"),
            node("Gather", ["f", "row"], "h", name="/row", axis=0),
            node("Reciprocal", ["h"], "y", name="/over"),
        ]
    )
    weights = {"tiny": scalar(1e-9), "zero": scalar(0.0), "row": np.array([5])}

    turned, start, is_nan = found(nodes, weights, rows(), "/guard", "/above")

    assert turned == {"/guard": TurnedValue(np.float32(1e-9), 0.0)}
    assert (start, is_nan) == ("/over", False)
