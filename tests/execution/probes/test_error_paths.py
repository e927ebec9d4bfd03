"""Where errors arrive, and at which tensors the errors of outputs are judged."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from polygraphy_layerprec.execution.kernels.node_session import tensor_of
from polygraphy_layerprec.execution.probes.error_paths import ErrorPaths
from polygraphy_layerprec.execution.streams import can_carry_error
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.precision import FP16
from tests.models import build_model, node, tensor

BOOL, INT64 = TensorProto.BOOL, TensorProto.INT64
FIRST = np.array([1.0, 2.0, 3.0], np.float32)
SECOND = np.array([9.0, 5.0, 4.0], np.float32)


def graph_of(nodes, inputs, *outputs):
    return load_graph(build_model(nodes, inputs, outputs))


def follow(paths, graph, values):
    """Follows all nodes of one sample, and returns the paths of the last."""
    tensors = {name: tensor_of(np.asarray(value)) for name, value in values.items()}
    for found in graph.nodes:
        last = paths.follow(found, tensors, is_layer=found.is_layer)
    return last


def test_every_float_output_is_judged_itself():
    graph = graph_of(
        [node("Exp", ["x"], "a"), node("Tanh", ["x"], "b")],
        [tensor("x", [3])],
        tensor("a", [3]),
        tensor("b", [3]),
    )
    paths = ErrorPaths(graph, FP16)
    follow(paths, graph, {"x": FIRST, "a": FIRST, "b": SECOND})

    assert set(paths.targets({"a": FIRST, "b": SECOND})) == {"a", "b"}


def deciding():
    """Returns a graph whose output is the place of the largest of a sum."""
    return graph_of(
        [node("Add", ["x", "x"], "h"), node("ArgMax", ["h"], "y", axis=0, keepdims=0)],
        [tensor("x", [3])],
        tensor("y", [], INT64),
    )


def test_integers_are_judged_by_what_decides_them():
    graph = deciding()
    paths = ErrorPaths(graph, FP16)
    follow(paths, graph, {"x": FIRST, "h": FIRST, "y": np.int64(2)})

    assert set(paths.targets({"y": np.int64(2)})) == {"h"}


def test_nothing_of_a_sample_is_left_for_the_next():
    graph = deciding()
    paths, fresh = ErrorPaths(graph, FP16), ErrorPaths(graph, FP16)
    follow(paths, graph, {"x": FIRST, "h": FIRST, "y": np.int64(2)})
    paths.forget()
    for each in (paths, fresh):
        follow(each, graph, {"x": SECOND, "h": SECOND, "y": np.int64(0)})

    found, expected = (each.targets({"y": np.int64(0)})["h"] for each in (paths, fresh))

    assert repr(found) == repr(expected)


def test_an_error_arrives_through_what_a_body_captures():
    body = helper.make_graph(
        [node("Identity", ["go"], "still"), node("Add", ["state", "h"], "next")],
        "body",
        [tensor("step", [], INT64), tensor("go", [], BOOL), tensor("state", [3])],
        [tensor("still", [], BOOL), tensor("next", [3])],
    )
    graph = graph_of(
        [node("Exp", ["x"], "h"), node("Loop", ["", "go", "start"], "y", body=body)],
        [tensor("x", [3]), tensor("go", [], BOOL), tensor("start", [3])],
        tensor("y", [3]),
    )
    paths = follow(
        ErrorPaths(graph, FP16),
        graph,
        {"x": FIRST, "h": FIRST, "go": np.True_, "start": FIRST, "y": FIRST},
    )

    loop = graph.producers["y"]
    assert [loop.captures[i] for i in paths.captured] == ["h"]
    assert paths.wanted == frozenset()


@pytest.mark.parametrize(
    ("values", "carries"),
    [
        (np.ones(2, np.float32), True),
        (np.ones(2, np.float64), True),
        (np.ones(2, np.float16), True),
        (np.ones(2, np.int64), False),
        (np.ones(2, bool), False),
    ],
)
def test_floats_of_any_width_carry_errors(values, carries):
    assert can_carry_error(tensor_of(values)) is carries


def test_nothing_carries_no_error():
    assert can_carry_error(None) is False
