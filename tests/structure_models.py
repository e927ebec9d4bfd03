"""Models with the structures that break tools: sequences, empty tensors, odd names, odd types."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.model_parts import build_model, node, normal, scalar, tensor

__all__ = [
    "constant_nodes",
    "custom_domain",
    "dynamic_shapes",
    "float16_part",
    "float64_part",
    "integer_output",
    "no_float_layer",
    "odd_names",
    "optional_tensors",
    "quantize_dequantize",
    "random_numbers",
    "sequences",
    "shared_weight",
    "unsorted_nodes",
]


def quantize_dequantize() -> onnx.ModelProto:
    """Returns a product of an activation and a weight that both pass through INT8."""
    nodes = [
        node("QuantizeLinear", ["x", "x_scale", "zero"], "x_q", name="x/Quantize"),
        node("DequantizeLinear", ["x_q", "x_scale", "zero"], "x_dq", name="x/Dequantize"),
        node("DequantizeLinear", ["w_q", "w_scale", "zero"], "w_dq", name="w/Dequantize"),
        node("MatMul", ["x_dq", "w_dq"], "y", name="matmul"),
    ]
    weights = {
        "x_scale": scalar(0.03),
        "w_scale": scalar(0.01),
        "zero": np.array(0, np.int8),
        "w_q": np.random.default_rng(0).integers(-127, 128, (4, 3)).astype(np.int8),
    }
    return build_model(nodes, [tensor("x", [2, 4])], [tensor("y", [2, 3])], weights)


def sequences() -> onnx.ModelProto:
    """Returns a model that splits a tensor to a sequence, takes one part and joins all again."""
    nodes = [
        node("Tanh", ["x"], "h", name="before"),
        node("SplitToSequence", ["h", "two"], "parts", name="split", axis=1),
        node("SequenceAt", ["parts", "one"], "part", name="pick"),
        node("ConcatFromSequence", ["parts"], "whole", name="join", axis=1),
        node("MatMul", ["whole", "weight"], "projected", name="project"),
        node("Add", ["projected", "part"], "y", name="after"),
    ]
    weights = {
        "two": np.array(2, np.int64),
        "one": np.array(1, np.int64),
        "weight": normal(0, 4, 2),
    }
    return build_model(nodes, [tensor("x", [3, 4])], [tensor("y", [3, 2])], weights)


def optional_tensors() -> onnx.ModelProto:
    """Returns nodes with empty inputs (`Clip` without min) and empty outputs (`mean` unused)."""
    nodes = [
        node("Clip", ["x", "", "ceiling"], "clipped", name="clip"),
        node(
            "LayerNormalization",
            ["clipped", "gamma"],
            "normal",
            "",
            "inverse_deviation",
            name="norm",
        ),
        node("Mul", ["normal", "inverse_deviation"], "y", name="mul"),
    ]
    weights = {"ceiling": scalar(1.0), "gamma": np.linspace(0.5, 1.5, 8, dtype=np.float32)}
    return build_model(nodes, [tensor("x", [2, 8])], [tensor("y", [2, 8])], weights)


def odd_names() -> onnx.ModelProto:
    """Returns nodes without a name, with the same name, and with hostile names."""
    hostile = "a'); import os #\n\"\\ <b>/../../é"
    nodes = [
        node("Mul", ["x", "weight"], "t0"),
        node("Add", ["t0", "weight"], "t1"),
        node("Tanh", ["t1"], "t2", name="twin"),
        node("Mul", ["t2", "weight"], "t3", name="twin"),
        node("Exp", ["t3"], hostile, name=hostile),
        node("Sub", [hostile, "weight"], "y", name="t0"),
    ]
    weights = {"weight": normal(0, 4)}
    return build_model(nodes, [tensor("x", [2, 4])], [tensor("y", [2, 4])], weights)


def unsorted_nodes() -> onnx.ModelProto:
    """Returns a model whose nodes are listed consumer first."""
    nodes = [
        node("Sub", ["b", "a"], "y", name="third"),
        node("Tanh", ["a"], "b", name="second"),
        node("Mul", ["x", "weight"], "a", name="first"),
    ]
    weights = {"weight": normal(0, 4)}
    return build_model(nodes, [tensor("x", [2, 4])], [tensor("y", [2, 4])], weights)


def float64_part() -> onnx.ModelProto:
    """Returns a model whose middle, `exact`, computes in FP64 between casts."""
    nodes = [
        node("Exp", ["x"], "h", name="before"),
        node("Cast", ["h"], "h64", name="to_double", to=TensorProto.DOUBLE),
        node("Mul", ["h64", "weight64"], "exact64", name="exact"),
        node("Cast", ["exact64"], "exact32", name="to_float", to=TensorProto.FLOAT),
        node("Sqrt", ["exact32"], "y", name="after"),
    ]
    weights = {"weight64": np.linspace(0.1, 1.1, 4)}
    return build_model(nodes, [tensor("x", [2, 4])], [tensor("y", [2, 4])], weights)


def float16_part() -> onnx.ModelProto:
    """Returns a model whose middle, `half`, is FP16 already, with an FP16 weight."""
    nodes = [
        node("Exp", ["x"], "h", name="before"),
        node("Cast", ["h"], "h16", name="to_half", to=TensorProto.FLOAT16),
        node("Mul", ["h16", "weight16"], "half16", name="half"),
        node("Cast", ["half16"], "half32", name="to_float", to=TensorProto.FLOAT),
        node("Sqrt", ["half32"], "y", name="after"),
    ]
    weights = {"weight16": np.linspace(0.1, 1.1, 4).astype(np.float16)}
    return build_model(nodes, [tensor("x", [2, 4])], [tensor("y", [2, 4])], weights)


def shared_weight() -> onnx.ModelProto:
    """Returns two products with the same weight, once on either side."""
    nodes = [
        node("MatMul", ["x", "weight"], "h", name="first"),
        node("MatMul", ["weight", "h"], "y", name="second"),
    ]
    weights = {"weight": normal(0, 4, 4, scale=0.5)}
    return build_model(nodes, [tensor("x", [4, 4])], [tensor("y", [4, 4])], weights)


def constant_nodes() -> onnx.ModelProto:
    """Returns a model whose weights are `Constant` nodes and a `ConstantOfShape` chain."""
    table = normal(0, 4, 3)
    nodes = [
        node(
            "Constant",
            [],
            "weight",
            name="c0",
            value=helper.make_tensor("value", TensorProto.FLOAT, table.shape, table.reshape(-1)),
        ),
        node("Constant", [], "shift", name="c1", value_float=0.25),
        node("Constant", [], "shape", name="c2", value_ints=[3]),
        node("ConstantOfShape", ["shape"], "zeros", name="filled"),
        node("MatMul", ["x", "weight"], "product", name="product"),
        node("Add", ["product", "shift"], "shifted", name="shifted"),
        node("Add", ["shifted", "zeros"], "y", name="unchanged"),
    ]
    return build_model(nodes, [tensor("x", [2, 4])], [tensor("y", [2, 3])])


def random_numbers() -> onnx.ModelProto:
    """Returns a model with noise that differs from run to run (`RandomNormalLike`, no seed)."""
    nodes = [
        node("Tanh", ["x"], "h", name="squash"),
        node("RandomNormalLike", ["h"], "noise", name="noise", scale=0.5),
        node("Add", ["h", "noise"], "y", name="perturb"),
    ]
    return build_model(nodes, [tensor("x", [2, 4])], [tensor("y", [2, 4])])


def integer_output() -> onnx.ModelProto:
    """Returns a classifier with two outputs: `logits` (float) and `label` (int64)."""
    nodes = [
        node("Gemm", ["x", "weight", "bias"], "logits", name="classify"),
        node("ArgMax", ["logits"], "label", name="decide", axis=-1, keepdims=0),
    ]
    weights = {"weight": normal(0, 8, 5), "bias": normal(1, 5)}
    outputs = [tensor("logits", [3, 5]), tensor("label", [3], TensorProto.INT64)]
    return build_model(nodes, [tensor("x", [3, 8])], outputs, weights)


def no_float_layer() -> onnx.ModelProto:
    """Returns integer arithmetic alone: nothing that FP16 could round."""
    nodes = [
        node("Add", ["x", "one"], "more", name="add"),
        node("Mul", ["more", "more"], "y", name="square"),
    ]
    integers = TensorProto.INT64
    weights = {"one": np.array(1, np.int64)}
    return build_model(nodes, [tensor("x", [4], integers)], [tensor("y", [4], integers)], weights)


def dynamic_shapes() -> onnx.ModelProto:
    """Returns a model with dynamic `batch` and `length` and a reshape computed from them."""
    nodes = [
        node("Shape", ["x"], "shape", name="shape"),
        node("Gather", ["shape", "first"], "batch", name="batch", axis=0),
        node("Concat", ["batch", "rest"], "target", name="target", axis=0),
        node("Reshape", ["x", "target"], "flat", name="reshape"),
        node("Tanh", ["flat"], "h", name="squash"),
        node("ReduceMean", ["h"], "y", name="mean", axes=[1]),
    ]
    weights = {"first": np.array([0], np.int64), "rest": np.array([-1], np.int64)}
    inputs = [tensor("x", ["batch", "length", 4])]
    return build_model(nodes, inputs, [tensor("y", ["batch", 1])], weights)


def custom_domain() -> onnx.ModelProto:
    """Returns a model with one node, `plugin`, that no ONNX-Runtime has a kernel for."""
    domain = "vendor.plugins"
    nodes = [
        node("Tanh", ["x"], "h", name="before"),
        helper.make_node("FusedMagic", ["h"], ["magic"], name="plugin", domain=domain, gain=2.0),
        node("Mul", ["magic", "h"], "y", name="after"),
        node("Neg", ["h"], "z", name="independent"),
    ]
    outputs = [tensor("y", [2, 4]), tensor("z", [2, 4])]
    return build_model(nodes, [tensor("x", [2, 4])], outputs, domains=[domain])
