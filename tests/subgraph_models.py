"""Models with graphs inside: control flow that captures outer tensors, and local functions."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.model_parts import build_model, node, normal, scalar, tensor

__all__ = ["if_with_capture", "local_function", "loop_with_capture", "scan_with_capture"]


def if_with_capture() -> onnx.ModelProto:
    """Returns an `If` whose branches capture the float tensor `h` of the outer graph."""
    then_nodes = [node("MatMul", ["h", "weight"], "then_out", name="then/MatMul")]
    else_nodes = [node("Neg", ["h"], "else_out", name="else/Neg")]
    nodes = [
        node("Tanh", ["x"], "h", name="outer/Tanh"),
        node(
            "If",
            ["condition"],
            "chosen",
            name="branch",
            then_branch=helper.make_graph(then_nodes, "then", [], [tensor("then_out", [2, 4])]),
            else_branch=helper.make_graph(else_nodes, "else", [], [tensor("else_out", [2, 4])]),
        ),
        node("Mul", ["chosen", "h"], "y", name="outer/Mul"),
    ]
    inputs = [tensor("x", [2, 4]), tensor("condition", [], TensorProto.BOOL)]
    return build_model(nodes, inputs, [tensor("y", [2, 4])], {"weight": normal(0, 4, 4)})


def loop_with_capture(trips: int = 3) -> onnx.ModelProto:
    """Returns a `Loop` of `trips` rounds that adds the captured `h` to its state each time."""
    body_nodes = [
        node("Add", ["state_in", "h"], "state_out", name="body/Add"),
        node("Identity", ["go_in"], "go_out", name="body/Identity"),
        node("Mul", ["state_out", "half"], "scanned", name="body/Mul"),
    ]
    body = helper.make_graph(
        body_nodes,
        "body",
        [
            tensor("round", [], TensorProto.INT64),
            tensor("go_in", [], TensorProto.BOOL),
            tensor("state_in", [2, 4]),
        ],
        [
            tensor("go_out", [], TensorProto.BOOL),
            tensor("state_out", [2, 4]),
            tensor("scanned", [2, 4]),
        ],
    )
    nodes = [
        node("Sigmoid", ["x"], "h", name="outer/Sigmoid"),
        node("Loop", ["trips", "", "x"], "final", "steps", name="repeat", body=body),
        node("ReduceMean", ["steps"], "mean", name="outer/ReduceMean", axes=[0], keepdims=0),
        node("Add", ["final", "mean"], "y", name="outer/Add"),
    ]
    weights = {"trips": np.array(trips, np.int64), "half": scalar(0.5)}
    return build_model(nodes, [tensor("x", [2, 4])], [tensor("y", [2, 4])], weights)


def scan_with_capture() -> onnx.ModelProto:
    """Returns a `Scan` over 5 steps whose body captures the float tensor `gate`."""
    body_nodes = [
        node("Mul", ["state_in", "gate"], "kept", name="body/Mul"),
        node("Add", ["kept", "step_in"], "state_out", name="body/Add"),
        node("Tanh", ["state_out"], "step_out", name="body/Tanh"),
    ]
    body = helper.make_graph(
        body_nodes,
        "body",
        [tensor("state_in", [4]), tensor("step_in", [4])],
        [tensor("state_out", [4]), tensor("step_out", [4])],
    )
    nodes = [
        node("Sigmoid", ["start"], "gate", name="outer/Sigmoid"),
        node("Scan", ["start", "x"], "last", "y", name="recur", body=body, num_scan_inputs=1),
    ]
    inputs = [tensor("start", [4]), tensor("x", [5, 4])]
    return build_model(nodes, inputs, [tensor("last", [4]), tensor("y", [5, 4])])


def local_function() -> onnx.ModelProto:
    """Returns a model that calls function `test.functions::ScaledTanh` twice."""
    body = [
        node("Mul", ["value", "factor"], "scaled", name="inner/Mul"),
        node("Tanh", ["scaled"], "squashed", name="inner/Tanh"),
    ]
    function = helper.make_function(
        "test.functions",
        "ScaledTanh",
        ["value", "factor"],
        ["squashed"],
        body,
        [helper.make_opsetid("", 17)],
    )
    domain = function.domain
    nodes = [
        helper.make_node("ScaledTanh", ["x", "w0"], ["h"], name="first", domain=domain),
        helper.make_node("ScaledTanh", ["h", "w1"], ["y"], name="second", domain=domain),
    ]
    return build_model(
        nodes,
        [tensor("x", [2, 4])],
        [tensor("y", [2, 4])],
        {"w0": normal(0, 4), "w1": normal(1, 4)},
        functions=[function],
        domains=[domain],
    )
