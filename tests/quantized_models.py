"""A cancellation in front of quantization, in whatever form it comes."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.models import normal, tensor

__all__ = ["MODELS", "NODE", "ROWS", "WIDTH", "X", "pair", "zero"]

ROWS, WIDTH, OUT = 16, 32, 8
X = normal(2, ROWS, WIDTH)
KERNEL = normal(5, 8, 2, 3, scale=0.3)
WEIGHT = normal(1, WIDTH, OUT, scale=0.3)
STEP = np.float32(0.05)
NODE = helper.make_node


def steps_of(weight):
    return np.float32(np.abs(weight).max() / 127)


def integers_of(weight):
    return np.clip(np.round(weight / steps_of(weight)), -127, 127).astype(np.int8)


def zero(kind, value=0):
    return numpy_helper.from_array(np.array(value, kind), "zero")


def model_of(tail, weights, *, opset=13):
    """A cancellation, whose output `u` the tail takes; the tail makes `y`."""
    nodes = [
        NODE("MatMul", ["x", "w1"], ["a"], name="/fc1"),
        NODE("Add", ["a", "offset"], ["b"], name="/shift"),
        NODE("Sub", ["b", "offset"], ["u"], name="/unshift"),
        *tail,
    ]
    weights = {
        "w1": normal(0, WIDTH, WIDTH, scale=0.3),
        "w2": WEIGHT,
        "offset": np.float32(500),
        **weights,
    }
    tensors = [
        numpy_helper.from_array(np.asarray(w), name) if not hasattr(w, "data_type") else w
        for name, w in weights.items()
    ]
    graph = helper.make_graph(
        nodes, "g", [tensor("x", [ROWS, WIDTH])], [tensor("y", None)], tensors
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


HEAD = NODE("MatMul", ["d", "w2"], ["y"], name="/fc2")


def pair(kind=np.int8, at=0, *, opset=13, scale=STEP, **attributes):
    nodes = [
        NODE("QuantizeLinear", ["u", "scale", "zero"], ["q"], name="/Q", **attributes),
        NODE("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="/DQ", **attributes),
        HEAD,
    ]
    shape = np.shape(scale)
    zeros = numpy_helper.from_array(np.full(shape, at, kind), "zero")
    return model_of(nodes, {"scale": np.asarray(scale), "zero": zeros}, opset=opset)


def moved_between():
    """Integers are reshaped and transposed between the two."""
    nodes = [
        NODE("QuantizeLinear", ["u", "scale", "zero"], ["q0"], name="/Q"),
        NODE("Reshape", ["q0", "shape"], ["q1"], name="/Reshape"),
        NODE("Transpose", ["q1"], ["q2"], name="/Transpose", perm=[1, 0, 2]),
        NODE("Concat", ["q2", "q2"], ["q"], name="/Concat", axis=2),
        NODE("DequantizeLinear", ["q", "scale", "zero"], ["d0"], name="/DQ"),
        NODE("MatMul", ["d0", "w3"], ["y"], name="/fc3"),
    ]
    weights = {"shape": np.array([ROWS, 4, WIDTH // 4]), "w3": normal(4, WIDTH // 2, OUT)}
    return model_of(nodes, {"scale": STEP, "zero": np.int8(0), **weights})


def without_zero_point(output_type):
    attributes = {"axis": 1, "block_size": 8}
    nodes = [
        NODE("QuantizeLinear", ["u", "scale"], ["q"], output_dtype=output_type, **attributes),
        NODE("DequantizeLinear", ["q", "scale"], ["d"], name="/DQ", **attributes),
        HEAD,
    ]
    return model_of(nodes, {"scale": np.full((ROWS, WIDTH // 8), STEP)}, opset=21)


def dynamic_pair():
    nodes = [
        NODE("DynamicQuantizeLinear", ["u"], ["q", "scale", "zero"], name="/quantize"),
        NODE("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="/DQ"),
        HEAD,
    ]
    return model_of(nodes, {})


def dynamic_matmul():
    """As ONNX-Runtime's dynamic quantization writes it."""
    nodes = [
        NODE("DynamicQuantizeLinear", ["u"], ["q", "scale", "zero"], name="/quantize"),
        NODE("MatMulInteger", ["q", "wq", "zero", "wz"], ["i"], name="/MatMul_quant"),
        NODE("Cast", ["i"], ["f"], name="/cast", to=TensorProto.FLOAT),
        NODE("Mul", ["scale", "ws"], ["scales"], name="/scales_mul"),
        NODE("Mul", ["f", "scales"], ["y"], name="/output_scale_mul"),
    ]
    weights = {"wq": integers_of(WEIGHT), "wz": np.int8(0), "ws": steps_of(WEIGHT)}
    return model_of(nodes, weights)


def dynamic_convolution():
    nodes = [
        NODE("Reshape", ["u", "shape"], ["u3"], name="/Reshape"),
        NODE("DynamicQuantizeLinear", ["u3"], ["q", "scale", "zero"], name="/quantize"),
        NODE("ConvInteger", ["q", "wq", "zero"], ["i"], name="/Conv_quant"),
        NODE("Cast", ["i"], ["f"], name="/cast", to=TensorProto.FLOAT),
        NODE("Mul", ["scale", "ws"], ["scales"], name="/scales_mul"),
        NODE("Mul", ["f", "scales"], ["y"], name="/output_scale_mul"),
    ]
    shape = np.array([ROWS, 2, WIDTH // 2])
    return model_of(nodes, {"shape": shape, "wq": integers_of(KERNEL), "ws": steps_of(KERNEL)})


def computed_scale():
    """The scale is a maximum of what it divides: the gradient passes through both."""
    nodes = [
        NODE("ReduceMax", ["u"], ["most"], name="/max", keepdims=0),
        NODE("Div", ["most", "levels"], ["scale"], name="/scale"),
        NODE("QuantizeLinear", ["u", "scale", "zero"], ["q"], name="/Q"),
        NODE("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="/DQ"),
        HEAD,
    ]
    return model_of(nodes, {"levels": np.float32(60), "zero": np.int8(0)})


def integer_matmul():
    nodes = [
        NODE("QuantizeLinear", ["u", "scale", "zero"], ["q"], name="/Q"),
        NODE(
            "QLinearMatMul",
            ["q", "scale", "zero", "wq", "ws", "zero", "scale", "zero"],
            ["o"],
            name="/QMatMul",
        ),
        NODE("DequantizeLinear", ["o", "scale", "zero"], ["y"], name="/DQ"),
    ]
    weights = {"wq": integers_of(WEIGHT), "ws": steps_of(WEIGHT)}
    return model_of(nodes, {"scale": STEP, "zero": np.int8(0), **weights})


def integer_convolution():
    nodes = [
        NODE("Reshape", ["u", "shape"], ["u3"], name="/Reshape"),
        NODE("QuantizeLinear", ["u3", "scale", "zero"], ["q"], name="/Q"),
        NODE(
            "QLinearConv",
            ["q", "scale", "zero", "wq", "ws", "wz", "scale", "zero"],
            ["o"],
            name="/QConv",
        ),
        NODE("DequantizeLinear", ["o", "scale", "zero"], ["y"], name="/DQ"),
    ]
    weights = {
        "shape": np.array([ROWS, 2, WIDTH // 2]),
        "wq": integers_of(KERNEL),
        "ws": np.full(8, steps_of(KERNEL)),
        "wz": np.zeros(8, np.int8),
    }
    return model_of(nodes, {"scale": STEP, "zero": np.uint8(128), **weights})


def integer_sum():
    """ONNX-Runtime's own operators on integers."""
    operands = ["q", "scale", "zero"]
    results = [*operands, *operands, "wide", "zero"]
    nodes = [
        NODE("QuantizeLinear", ["u", "scale", "zero"], ["q"], name="/Q"),
        NODE("QLinearAdd", results, ["s"], name="/QAdd", domain="com.microsoft"),
        NODE(
            "QLinearConcat",
            ["wide", "zero", "s", "wide", "zero", *operands],
            ["c"],
            name="/QConcat",
            domain="com.microsoft",
            axis=1,
        ),
        NODE("DequantizeLinear", ["c", "wide", "zero"], ["y"], name="/DQ"),
    ]
    wide = np.float32(2 * STEP)
    return model_of(nodes, {"scale": STEP, "wide": wide, "zero": np.int8(0)})


def fake_quantization():
    """Quantization written out in floats."""
    nodes = [
        NODE("Div", ["u", "scale"], ["t"], name="/div"),
        NODE("Round", ["t"], ["r"], name="/round"),
        NODE("Clip", ["r", "low", "high"], ["c"], name="/clip"),
        NODE("Mul", ["c", "scale"], ["d"], name="/mul"),
        HEAD,
    ]
    ends = {"low": np.float32(-128), "high": np.float32(127)}
    return model_of(nodes, {"scale": STEP, **ends})


MODELS = {
    **{f"int8, opset {v}": lambda v=v: pair(opset=v) for v in (10, 13, 19, 21, 22)},
    "uint8": lambda: pair(np.uint8, 128),
    "int16": lambda: pair(np.int16, opset=21, scale=np.float32(1e-3)),
    "per channel": lambda: pair(scale=np.full(WIDTH, STEP), axis=1),
    "blocks of int8": lambda: without_zero_point(TensorProto.INT8),
    "moved between": moved_between,
    "dynamic": dynamic_pair,
    "dynamic product": dynamic_matmul,
    "dynamic convolution": dynamic_convolution,
    "computed scale": computed_scale,
    "product of integers": integer_matmul,
    "convolution of integers": integer_convolution,
    "sum of integers": integer_sum,
    "written out": fake_quantization,
}
