"""Small models that stand for what users reported, each with the input that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from tests.model_parts import build_model, node, normal, scalar, tensor

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

__all__ = [
    "activation",
    "compared_with_a_weight",
    "double_tail",
    "folded_normalization",
    "hardmax_between_kept",
    "infinite_output",
    "layers_in_branches",
    "long_recurrence",
    "named_like_tensors",
    "old_opset",
    "twice_called",
]


def compared_with_a_weight() -> tuple[ModelProto, dict[str, np.ndarray]]:
    """An input that equals the weight that it is compared with: in FP16 it does too."""
    weight = normal(0, 512)
    nodes = [
        node("Greater", ["x", "w"], "above", name="/compare"),
        node("Cast", ["above"], "number", name="/cast", to=TensorProto.FLOAT),
        node("Mul", ["number", "factor"], "scaled", name="/mul"),
        node("Add", ["scaled", "factor"], "y", name="/add"),
    ]
    weights = {"w": weight, "factor": scalar(1.5)}
    return build_model(nodes, [tensor("x", [512])], [tensor("y", [512])], weights), {"x": weight}


def infinite_output() -> tuple[ModelProto, dict[str, np.ndarray]]:
    """One element of the output leaves the range of FP16."""
    nodes = [node("Mul", ["x", "w"], "y", name="/mul")]
    weights = {"w": np.array([1e3, 1, 1, 1], np.float32)}
    model = build_model(nodes, [tensor("x", [4])], [tensor("y", [4])], weights)
    return model, {"x": np.array([100, 2, 3, 4], np.float32)}


def hardmax_between_kept() -> tuple[ModelProto, dict[str, np.ndarray]]:
    """A decision between two products, on numbers that are equal in FP16 alone."""
    nodes = [
        node("Mul", ["x", "third"], "a", name="/first"),
        node("Hardmax", ["a"], "b", name="/hardmax", axis=-1),
        node("Mul", ["b", "third"], "y", name="/last"),
    ]
    model = build_model(
        nodes, [tensor("x", [1, 3])], [tensor("y", [1, 3])], {"third": scalar(1 / 3)}
    )
    return model, {"x": np.array([[3.0, 3.0002, 1.0]], np.float32)}


def twice_called() -> tuple[ModelProto, dict[str, np.ndarray]]:
    """A local function of two layers, called twice."""
    body = [
        helper.make_node("Constant", [], ["k"], value_float=1.3),
        node("Mul", ["a", "k"], "b", name="inner_mul"),
        node("Add", ["b", "a"], "c", name="inner_add"),
    ]
    function = helper.make_function(
        "my.domain", "Block", ["a"], ["c"], body, [helper.make_opsetid("", 17)]
    )
    nodes = [
        helper.make_node("Block", ["x"], ["u"], domain="my.domain", name="call_0"),
        node("Tanh", ["u"], "t", name="/tanh"),
        helper.make_node("Block", ["t"], ["y"], domain="my.domain", name="call_1"),
    ]
    shape = [4, 4]
    model = build_model(
        nodes,
        [tensor("x", shape)],
        [tensor("y", shape)],
        functions=[function],
        domains=["my.domain"],
    )
    return model, {"x": normal(0, *shape)}


def named_like_tensors() -> tuple[ModelProto, dict[str, np.ndarray]]:
    """Nodes that bear the names of the tensors that they make."""
    nodes = [
        node("MatMul", ["x", "w"], "a", name="a"),
        node("Exp", ["a"], "b", name="b"),
        node("Tanh", ["b"], "y", name="y"),
    ]
    weights = {"w": normal(0, 32, 32, scale=0.3)}
    model = build_model(nodes, [tensor("x", [4, 32])], [tensor("y", [4, 32])], weights)
    return model, {"x": normal(1, 4, 32)}


def layers_in_branches() -> tuple[ModelProto, dict[str, np.ndarray]]:
    """All products are in the branches of an If."""

    def branch(name: str, scale: float) -> GraphProto:
        nodes = [
            node("MatMul", ["x", f"{name}_w"], f"{name}_a", name=f"/{name}/fc1"),
            node("Tanh", [f"{name}_a"], f"{name}_b", name=f"/{name}/act"),
            node("MatMul", [f"{name}_b", f"{name}_w"], f"{name}_y", name=f"/{name}/fc2"),
        ]
        weights = {f"{name}_w": normal(0, 32, 32, scale=scale)}
        outputs = [tensor(f"{name}_y", [4, 32])]
        return build_model(nodes, [], outputs, weights).graph

    nodes = [
        node(
            "If",
            ["fast"],
            "u",
            name="/If",
            then_branch=branch("then", 0.3),
            else_branch=branch("else", 0.6),
        ),
        node("Sigmoid", ["u"], "y", name="/sigmoid"),
    ]
    inputs = [tensor("fast", [], TensorProto.BOOL), tensor("x", [4, 32])]
    model = build_model(nodes, inputs, [tensor("y", [4, 32])])
    return model, {"fast": np.array(1, bool), "x": normal(1, 4, 32)}


def folded_normalization() -> tuple[ModelProto, dict[str, np.ndarray]]:
    """Variances beyond the range of FP16 at both ends, whose scale and shift are within it."""
    count, shape = 8, [2, 8, 6, 6]
    nodes = [
        node("Conv", ["x", "kernel"], "c", name="/conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "s1", "b1", "m1", "v1"], "n", name="/bn1"),
        node("Relu", ["n"], "r", name="/relu"),
        node("Mul", ["r", "small"], "q", name="/scale"),
        node("BatchNormalization", ["q", "s2", "b2", "b2", "v2"], "y", name="/bn2"),
    ]
    weights = {
        "kernel": normal(0, count, count, 3, 3, scale=300),
        "s1": np.linspace(0.5, 2, count, dtype=np.float32),
        "b1": normal(1, count),
        "m1": normal(2, count, scale=100),
        "v1": np.geomspace(1e5, 5e7, count).astype(np.float32),
        "small": scalar(1e-3),
        "s2": np.ones(count, np.float32),
        "b2": np.zeros(count, np.float32),
        "v2": np.full(count, 2e-8, np.float32),
    }
    model = build_model(nodes, [tensor("x", shape)], [tensor("y", shape)], weights)
    return model, {"x": normal(3, *shape)}


def double_tail() -> tuple[ModelProto, dict[str, np.ndarray]]:
    """The last layer computes in DOUBLE."""
    nodes = [
        node("MatMul", ["x", "w"], "a", name="/fc"),
        node("Cast", ["a"], "d", name="/to_double", to=TensorProto.DOUBLE),
        node("Softmax", ["d"], "p", name="/softmax", axis=-1),
    ]
    outputs = [tensor("p", [4, 32], TensorProto.DOUBLE)]
    weights = {"w": normal(0, 32, 32, scale=0.3)}
    return build_model(nodes, [tensor("x", [4, 32])], outputs, weights), {"x": normal(1, 4, 32)}


def long_recurrence() -> tuple[ModelProto, dict[str, np.ndarray]]:
    """An LSTM of 480 steps, whose gates and states are rounded in every one of them."""
    steps, size = 480, 32
    nodes = [
        node("LSTM", ["x", "w", "r", "b"], "all", "last", name="/lstm", hidden_size=size),
        node("Squeeze", ["last", "axis"], "h", name="/squeeze"),
        node("MatMul", ["h", "head"], "y", name="/head"),
    ]
    weights = {
        "w": normal(0, 1, 4 * size, size, scale=0.15),
        "r": normal(1, 1, 4 * size, size, scale=0.15),
        "b": normal(2, 1, 8 * size, scale=0.1),
        "axis": np.array([0]),
        "head": normal(3, size, 8, scale=0.3),
    }
    model = build_model(nodes, [tensor("x", [steps, 1, size])], [tensor("y", [1, 8])], weights)
    return model, {"x": normal(4, steps, 1, size)}


def activation(op_type: str) -> tuple[ModelProto, dict[str, np.ndarray]]:
    """A convolution and an activation, in an opset that has BF16 for both."""
    nodes = [
        node("Conv", ["x", "kernel"], "c", name="/conv"),
        node(op_type, ["c"], "y", name="/act"),
    ]
    weights = {"kernel": normal(0, 4, 4, 3, 3, scale=0.3)}
    inputs, outputs = [tensor("x", [1, 4, 8, 8])], [tensor("y", [1, 4, 6, 6])]
    model = build_model(nodes, inputs, outputs, weights, opset=22)
    model.ir_version = 10
    return model, {"x": normal(1, 1, 4, 8, 8)}


def old_opset() -> tuple[ModelProto, dict[str, np.ndarray]]:
    """Opset 17, in which convolution and pooling have no BF16."""
    nodes = [
        node("Conv", ["x", "kernel"], "c", name="/conv"),
        node("Relu", ["c"], "r", name="/relu"),
        node("GlobalAveragePool", ["r"], "p", name="/pool"),
        node("Mul", ["p", "factor"], "y", name="/scale"),
    ]
    weights = {"kernel": normal(0, 4, 4, 3, 3, scale=0.3), "factor": scalar(1.7)}
    inputs, outputs = [tensor("x", [1, 4, 8, 8])], [tensor("y", [1, 4, 1, 1])]
    return build_model(nodes, inputs, outputs, weights), {"x": normal(1, 1, 4, 8, 8)}


def loop_around_a_product() -> tuple[ModelProto, dict[str, np.ndarray]]:
    """A loop whose body multiplies by what a product in front of it makes."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            node("Identity", ["going"], "on"),
            node("Exp", ["s"], "e", name="/exp"),
            node("Mul", ["e", "h"], "s_next", name="/mul"),
        ],
        "body",
        [
            info("step", TensorProto.INT64, []),
            info("going", TensorProto.BOOL, []),
            tensor("s", [2, 4]),
        ],
        [info("on", TensorProto.BOOL, []), tensor("s_next", [2, 4])],
    )
    nodes = [
        node("MatMul", ["x", "w"], "h", name="/product"),
        helper.make_node("Loop", ["n", "yes", "x"], ["z"], name="/loop", body=body),
        node("Tanh", ["z"], "y", name="/tanh"),
    ]
    weights = {"w": normal(0, 4, 4), "n": np.int64(3), "yes": np.ones((), bool)}
    model = build_model(nodes, [tensor("x", [2, 4])], [tensor("y", [2, 4])], weights)
    return model, {"x": normal(1, 2, 4)}
