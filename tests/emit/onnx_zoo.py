"""Small ONNX models, one for each construct that a rewriter can trip over.

Every builder returns a model in FP32; `feeds` makes inputs for any of them.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, parser

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

__all__ = ["ZOO", "feeds", "float_value", "make_model", "random_weights"]

_FLOAT, _INT = TensorProto.FLOAT, TensorProto.INT64
_MASK = np.float32(-3.4028235e38)
_node = helper.make_node


def feeds(model: ModelProto, seed: int = 0) -> dict[str, npt.NDArray[np.generic]]:
    """Returns inputs for a model: normal floats, integers in [0, 3), true booleans."""
    generator = np.random.default_rng(seed)
    weights = {tensor.name for tensor in model.graph.initializer}
    result = {}
    for value in model.graph.input:
        if value.name in weights:
            continue
        tensor_type = value.type.tensor_type
        shape = tuple(dim.dim_value or 2 for dim in tensor_type.shape.dim)
        dtype = helper.tensor_dtype_to_np_dtype(tensor_type.elem_type)
        if dtype.kind == "f":
            result[value.name] = generator.normal(size=shape).astype(dtype)
        elif dtype.kind == "b":
            result[value.name] = np.ones(shape, dtype)
        else:
            result[value.name] = generator.integers(0, 3, size=shape).astype(dtype)
    return result


def float_value(name: str, *shape: int | str) -> ValueInfoProto:
    """Returns the declaration of an FP32 tensor."""
    return helper.make_tensor_value_info(name, _FLOAT, list(shape))


def random_weights(**shapes: tuple[int, ...]) -> dict[str, npt.NDArray[np.float32]]:
    """Returns small normal weights by name, the same ones for the same name and shape."""
    return {
        name: np.random.default_rng(zlib.crc32(name.encode()))
        .normal(scale=0.5, size=shape)
        .astype(np.float32)
        for name, shape in shapes.items()
    }


def make_model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    weights: Mapping[str, npt.ArrayLike] | None = None,
    *,
    opset: int,
    domains: Sequence[str] = (),
) -> ModelProto:
    """Returns a model whose weights keep the dtype that they come in."""
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), tensors)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10 if opset < 23 else 11)


def _mlp() -> ModelProto:
    nodes = [
        _node("MatMul", ["x", "w1"], ["h1"], name="first"),
        _node("Add", ["h1", "b1"], ["h2"], name="bias"),
        _node("Relu", ["h2"], ["h3"], name="relu"),
        _node("MatMul", ["h3", "w2"], ["h4"], name="second"),
        _node("Sigmoid", ["h4"], ["y"], name="sigmoid"),
    ]
    weights = random_weights(w1=(8, 16), b1=(16,), w2=(16, 4))
    return make_model(nodes, [float_value("x", 2, 8)], [float_value("y", 2, 4)], weights, opset=13)


def _large_mlp() -> ModelProto:
    constant = numpy_helper.from_array(random_weights(w2=(64, 32))["w2"])
    nodes = [
        _node("Constant", [], ["w2"], value=constant),
        _node("Gemm", ["x", "w1", "b1"], ["h1"]),
        _node("Tanh", ["h1"], ["h2"]),
        _node("MatMul", ["h2", "w2"], ["y"]),
    ]
    weights = random_weights(w1=(40, 64), b1=(64,))
    outputs = [float_value("y", 2, 32)]
    return make_model(nodes, [float_value("x", 2, 40)], outputs, weights, opset=21)


def _convolutional() -> ModelProto:
    nodes = [
        _node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        _node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["n"]),
        _node("Relu", ["n"], ["r"]),
        _node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        _node("Conv", ["p", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        _node("Add", ["c2", "p"], ["a"]),
        _node("GlobalAveragePool", ["a"], ["g"]),
        _node("Flatten", ["g"], ["f"]),
        _node("Gemm", ["f", "w3", "b3"], ["y"], transB=1),
    ]
    weights = random_weights(
        w=(4, 3, 3, 3), b=(4,), scale=(4,), shift=(4,), mean=(4,), w2=(4, 4, 3, 3), w3=(5, 4),
        b3=(5,),
    )  # fmt: skip
    weights["variance"] = np.full(4, 0.5, np.float32)
    inputs = [float_value("x", 1, 3, 8, 8)]
    return make_model(nodes, inputs, [float_value("y", 1, 5)], weights, opset=11)


def _batch_normalization_17() -> ModelProto:
    model = _convolutional()
    model.opset_import[0].version = 17
    return model


def _u_net() -> ModelProto:
    nodes = [
        _node("Conv", ["x", "w1"], ["d1"], pads=[1, 1, 1, 1]),
        _node("LeakyRelu", ["d1"], ["d1r"], alpha=0.1),
        _node("AveragePool", ["d1r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        _node("Conv", ["p", "w2"], ["d2"], pads=[1, 1, 1, 1]),
        _node("ConvTranspose", ["d2", "w3"], ["u"], strides=[2, 2]),
        _node("Concat", ["u", "d1r"], ["cat"], axis=1),
        _node("Conv", ["cat", "w4"], ["y"]),
    ]
    weights = random_weights(w1=(4, 1, 3, 3), w2=(8, 4, 3, 3), w3=(8, 4, 2, 2), w4=(1, 8, 1, 1))
    inputs, outputs = [float_value("x", 1, 1, 8, 8)], [float_value("y", 1, 1, 8, 8)]
    return make_model(nodes, inputs, outputs, weights, opset=11)


def _attention_block() -> ModelProto:
    nodes = [
        _node("LayerNormalization", ["x", "gamma", "beta"], ["n"], axis=-1, name="norm"),
        _node("MatMul", ["n", "wq"], ["q"], name="query"),
        _node("MatMul", ["n", "wk"], ["k"], name="key"),
        _node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        _node("MatMul", ["q", "kt"], ["s"], name="scores"),
        _node("Div", ["s", "root"], ["ss"], name="scale"),
        _node("Equal", ["ids", "pad"], ["padded"]),
        _node("Where", ["padded", "lowest", "ss"], ["ms"], name="mask"),
        _node("Softmax", ["ms"], ["p"], axis=-1, name="softmax"),
        _node("MatMul", ["p", "n"], ["o"], name="mix"),
        _node("Add", ["o", "x"], ["residual"], name="residual"),
        _node("Erf", ["residual"], ["e"]),
        _node("Mul", ["e", "residual"], ["y"]),
    ]
    weights = random_weights(gamma=(8,), beta=(8,), wq=(8, 8), wk=(8, 8))
    weights |= {"root": np.float32(8**0.5), "lowest": _MASK, "pad": np.int64(2)}
    inputs = [float_value("x", 1, 6, 8), helper.make_tensor_value_info("ids", _INT, [1, 1, 6])]
    return make_model(nodes, inputs, [float_value("y", 1, 6, 8)], weights, opset=17)


def _shared_weight() -> ModelProto:
    nodes = [
        _node("MatMul", ["x", "w"], ["a"]),
        _node("Tanh", ["a"], ["t"]),
        _node("MatMul", ["t", "w"], ["y"]),
        _node("Transpose", ["w"], ["wt"]),
        _node("MatMul", ["t", "wt"], ["z"]),
    ]
    outputs = [float_value("y", 2, 6), float_value("z", 2, 6)]
    weights = random_weights(w=(6, 6))
    return make_model(nodes, [float_value("x", 2, 6)], outputs, weights, opset=13)


def _constant_nodes() -> ModelProto:
    value = numpy_helper.from_array(random_weights(c=(4, 4))["c"])
    nodes = [
        _node("Constant", [], ["c"], value=value, name="matrix"),
        _node("Constant", [], ["s"], value_float=0.3),
        _node("Constant", [], ["v"], value_floats=[0.1, 0.2, 0.3, 0.4]),
        _node("Constant", [], ["i"], value_ints=[2, 4]),
        _node("MatMul", ["x", "c"], ["a"]),
        _node("Mul", ["a", "s"], ["b"]),
        _node("Add", ["b", "v"], ["d"]),
        _node("Sub", ["d", "s"], ["e"]),
        _node("Reshape", ["e", "i"], ["y"]),
    ]
    return make_model(nodes, [float_value("x", 2, 4)], [float_value("y", 2, 4)], opset=13)


def _resize(opset: int) -> ModelProto:
    nodes = [
        _node("Conv", ["x", "w"], ["c"]),
        _node("Resize", ["c", "roi", "scales"], ["r"], mode="linear"),
        _node("Exp", ["r"], ["y"]),
    ]
    weights = random_weights(w=(2, 2, 1, 1)) | {
        "roi": np.empty(0, np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    inputs, outputs = [float_value("x", 1, 2, 4, 4)], [float_value("y", 1, 2, 8, 8)]
    return make_model(nodes, inputs, outputs, weights, opset=opset)


def _float_shape_arithmetic() -> ModelProto:
    nodes = [
        _node("Exp", ["x"], ["r"]),
        _node("Shape", ["r"], ["shape"]),
        _node("Slice", ["shape", "two", "four"], ["hw"]),
        _node("Cast", ["hw"], ["hwf"], to=_FLOAT),
        _node("Mul", ["hwf", "factor"], ["scaled"]),
        _node("Floor", ["scaled"], ["floored"]),
        _node("Cast", ["floored"], ["size"], to=_INT),
        _node("Slice", ["shape", "zero", "two"], ["nc"]),
        _node("Concat", ["nc", "size"], ["sizes"], axis=0),
        _node("Resize", ["r", "", "", "sizes"], ["z"], mode="nearest"),
        _node("Exp", ["z"], ["y"]),
    ]
    weights = {
        "zero": np.array([0]), "two": np.array([2]), "four": np.array([4]),
        "factor": np.array([1.5, 1.5], np.float32),
    }  # fmt: skip
    inputs, outputs = [float_value("x", 1, 1, 4, 4)], [float_value("y", 1, 1, 6, 6)]
    return make_model(nodes, inputs, outputs, weights, opset=13)


def _optional_operands() -> ModelProto:
    nodes = [
        _node("Clip", ["x", "", "top"], ["c"]),
        _node("Dropout", ["c"], ["d", ""]),
        _node("Softplus", ["d"], ["s"]),
        _node("ArgMin", ["s"], ["i"], axis=1),
        _node("Clip", ["s"], ["y"]),
    ]
    outputs = [float_value("y", 2, 4), helper.make_tensor_value_info("i", _INT, [2, 1])]
    weights = {"top": np.float32(0.7)}
    return make_model(nodes, [float_value("x", 2, 4)], outputs, weights, opset=13)


def _statistics_outputs() -> ModelProto:
    nodes = [
        _node("LayerNormalization", ["x", "gamma"], ["x1"]),
        _node("LayerNormalization", ["x1", "gamma"], ["n", "mean", "deviation"]),
        _node("Mul", ["n", "deviation"], ["m"]),
        _node("Add", ["m", "mean"], ["y"]),
    ]
    weights = random_weights(gamma=(4,))
    return make_model(nodes, [float_value("x", 2, 4)], [float_value("y", 2, 4)], weights, opset=17)


def _clashing_names() -> ModelProto:
    nodes = [
        _node("MatMul", ["x", "w"], ["x__fp16"], name=""),
        _node("Tanh", ["x__fp16"], ["a__fp32"], name=""),
        _node("MatMul", ["a__fp32", "w"], ["b"], name="b__fp32"),
        _node("Exp", ["b"], ["w__fp16"], name="a__fp32"),
        _node("Add", ["w__fp16", "x"], ["y"], name="x__fp16_2"),
    ]
    weights = random_weights(w=(4, 4))
    return make_model(nodes, [float_value("x", 2, 4)], [float_value("y", 2, 4)], weights, opset=17)


def _parsed(text: str) -> ModelProto:
    return parser.parse_model(text)


def _conditional() -> ModelProto:
    return _parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        graph (float[2,4] x, bool c) => (float[2,4] y)
        <float[4,4] w = {1,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1,1.1,1.2,1.3,1.4,1.5}> {
            h = MatMul (x, w)
            g = Tanh (h)
            b = If (c) <
                then_branch = then () => (float[2,4] t) { u = Exp (g)  t = MatMul (u, w) },
                else_branch = other () => (float[2,4] e) { e = Sub (g, x) }
            >
            y = Sigmoid (b)
        }""")


def _loop() -> ModelProto:
    return _parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        graph (float[2,4] x) => (float[2,4] y, float[3,2,4] trace)
        <float[4,4] w = {0.1,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.1,0.1,0.2,0.3,0.4,0.5},
         int64 n = {3}, bool go = {1}> {
            h = MatMul (x, w)
            s = Tanh (x)
            f, scan = Loop (n, go, h) <
                body = b (int64 i, bool cond, float[2,4] state)
                    => (bool again, float[2,4] next, float[2,4] out) {
                    again = Identity (cond)
                    p = MatMul (state, w)
                    q = Add (p, s)
                    next = Tanh (q)
                    out = Identity (next)
                }
            >
            y = Exp (f)
            trace = Mul (scan, scan)
        }""")


def _scan() -> ModelProto:
    return _parsed("""
        <ir_version: 8, opset_import: ["" : 11]>
        graph (float[3,4] x) => (float[3,4] y)
        <float[4] start = {0,0,0,0}> {
            e = Sigmoid (x)
            z = Softplus (start)
            last, sums = Scan <num_scan_inputs = 1,
                body = b (float[4] state, float[4] item) => (float[4] next, float[4] out) {
                    next = Add (state, item)
                    out = Identity (next)
                }
            > (z, e)
            y = Tanh (sums)
        }""")


def _nested_bodies() -> ModelProto:
    return _parsed("""
        <ir_version: 8, opset_import: ["" : 17]>
        graph (float[2,4] x, bool c) => (float[2,4] y)
        <int64 n = {2}, bool go = {1}> {
            s = Softplus (x)
            f = Loop (n, go, s) <
                body = b (int64 i, bool cond, float[2,4] state)
                    => (bool again, float[2,4] next) {
                    again = Identity (cond)
                    next = If (c) <
                        then_branch = then () => (float[2,4] t) { t = Sub (state, s) },
                        else_branch = other () => (float[2,4] e) { e = Add (state, x) }
                    >
                }
            >
            y = Exp (f)
        }""")


def _local_functions() -> ModelProto:
    return _parsed("""
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        graph (float[2,4] x) => (float[2,4] y)
        <float[4,4] w = {1,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1,1.1,1.2,1.3,1.4,1.5}> {
            h = local.block (x, w)
            g = Tanh (h)
            y = local.block (g, w)
        }
        <domain: "local", opset_import: ["" : 17, "local" : 1]> block (a, m) => (r) {
            k = Constant <value = float {0.25}> ()
            t = MatMul (a, m)
            r = local.scaled (t, k)
        }
        <domain: "local", opset_import: ["" : 17]> scaled (a, k) => (r) {
            t = Mul (a, k)
            r = Sigmoid (t)
        }""")


def _foreign_function() -> ModelProto:
    model = _local_functions()
    for function in model.functions:
        for entry in function.opset_import:
            if not entry.domain:
                entry.version = 16
    return model


def _quantized(opset: int) -> ModelProto:
    nodes = [
        _node("Relu", ["x"], ["r"]),
        _node("QuantizeLinear", ["r", "s", "zero"], ["q"]),
        _node("DequantizeLinear", ["q", "s", "zero"], ["d"]),
        _node("DequantizeLinear", ["wq", "ws"], ["w"], axis=0),
        _node("Conv", ["d", "w"], ["c"]),
        _node("Tanh", ["c"], ["y"]),
    ]
    weights = {
        "s": np.float32(0.05), "zero": np.int8(0), "ws": np.array([0.01, 0.02], np.float32),
        "wq": np.arange(-27, 27, dtype=np.int8).reshape(2, 3, 3, 3),
    }  # fmt: skip
    inputs, outputs = [float_value("x", 1, 3, 5, 5)], [float_value("y", 1, 2, 3, 3)]
    return make_model(nodes, inputs, outputs, weights, opset=opset)


def _quantized_tiny_scale() -> ModelProto:
    model = _quantized(21)
    for tensor in model.graph.initializer:
        if tensor.name == "ws":
            tensor.CopyFrom(numpy_helper.from_array(np.array([1e-6, 0.02], np.float32), "ws"))
    return model


def _recurrent(op: str, gates: int, opset: int, *, both_ways: bool = False) -> ModelProto:
    count = 2 if both_ways else 1
    direction = "bidirectional" if both_ways else "forward"
    nodes = [
        _node("MatMul", ["x", "embed"], ["e"]),
        _node(op, ["e", "w", "r", "b", "", "h0"], ["out", "last"], hidden_size=4,
              direction=direction),
        _node("Tanh", ["out"], ["y"]),
        _node("Exp", ["last"], ["z"]),
    ]  # fmt: skip
    weights = random_weights(
        embed=(3, 3), w=(count, gates * 4, 3), r=(count, gates * 4, 4), b=(count, gates * 8),
        h0=(count, 2, 4),
    )  # fmt: skip
    outputs = [float_value("y", 5, count, 2, 4), float_value("z", count, 2, 4)]
    return make_model(nodes, [float_value("x", 5, 2, 3)], outputs, weights, opset=opset)


def _transposed_recurrent() -> ModelProto:
    nodes = [
        _node("Relu", ["x"], ["a"]),
        _node("MatMul", ["a", "embed"], ["m"]),
        _node("Transpose", ["m"], ["e"], perm=[1, 0, 2]),
        _node("GRU", ["e", "w", "r"], ["out"], hidden_size=4),
        _node("Squeeze", ["out", "one"], ["s"]),
        _node("Transpose", ["s"], ["t"], perm=[1, 0, 2]),
        _node("MatMul", ["t", "head"], ["y"]),
    ]
    weights = random_weights(embed=(3, 3), w=(1, 12, 3), r=(1, 12, 4), head=(4, 2))
    weights["one"] = np.array([1])  # type: ignore[assignment]
    inputs, outputs = [float_value("x", 2, 5, 3)], [float_value("y", 2, 5, 2)]
    return make_model(nodes, inputs, outputs, weights, opset=17)


def _without_half_kernel(op: str, opset: int) -> ModelProto:
    operands = ["s", "axis"] if op == "CumSum" else ["s"]
    nodes = [
        _node("Softsign", ["x"], ["s"]),
        _node(op, operands, ["c"]),
        _node("Exp", ["c"], ["y"]),
    ]
    weights = {"axis": np.int64(1)} if op == "CumSum" else {}
    return make_model(nodes, [float_value("x", 2, 4)], [float_value("y", 2, 4)], weights,
                      opset=opset)  # fmt: skip


def _range() -> ModelProto:
    nodes = [
        _node("Shape", ["x"], ["shape"]),
        _node("Gather", ["shape", "one"], ["n"], axis=0),
        _node("Cast", ["n"], ["limit"], to=_FLOAT),
        _node("Range", ["start", "limit", "step"], ["positions"]),
        _node("Mul", ["positions", "frequency"], ["angle"]),
        _node("Cos", ["angle"], ["c"]),
        _node("Mul", ["x", "c"], ["y"]),
    ]
    weights = {
        "one": np.int64(1), "start": np.float32(0), "step": np.float32(1),
        "frequency": np.float32(0.3),
    }  # fmt: skip
    return make_model(nodes, [float_value("x", 2, 4)], [float_value("y", 2, 4)], weights, opset=18)


def _random_draws() -> ModelProto:
    nodes = [
        _node("RandomNormal", [], ["r"], dtype=_FLOAT, shape=[2, 4], seed=1.0),
        _node("RandomUniformLike", ["x"], ["u"], seed=1.0),
        _node("Mul", ["r", "none"], ["r0"]),
        _node("Mul", ["u", "none"], ["u0"]),
        _node("Sum", ["x", "r0", "u0"], ["s"]),
        _node("Exp", ["s"], ["y"]),
    ]
    weights = {"none": np.float32(0)}
    return make_model(nodes, [float_value("x", 2, 4)], [float_value("y", 2, 4)], weights, opset=13)


def _constant_of_shape() -> ModelProto:
    lowest = numpy_helper.from_array(np.array([_MASK]))
    nodes = [
        _node("Exp", ["x"], ["q"]),
        _node("Shape", ["q"], ["shape"]),
        _node("ConstantOfShape", ["shape"], ["fill"], value=lowest),
        _node("Trilu", ["fill", "k"], ["mask"], upper=1),
        _node("Add", ["q", "mask"], ["m"]),
        _node("Softmax", ["m"], ["p"]),
        _node("ConstantOfShape", ["shape"], ["zeros"]),
        _node("Add", ["p", "zeros"], ["y"]),
    ]
    weights = {"k": np.int64(1)}
    return make_model(nodes, [float_value("x", 4, 4)], [float_value("y", 4, 4)], weights, opset=17)


def _embedding() -> ModelProto:
    nodes = [
        _node("Gather", ["table", "ids"], ["e"]),
        _node("Cast", ["keep"], ["kf"], to=_FLOAT),
        _node("Sub", ["one", "kf"], ["drop"]),
        _node("Mul", ["drop", "lowest"], ["bias"]),
        _node("ReduceMean", ["e"], ["m"], axes=[2], keepdims=0),
        _node("Add", ["m", "bias"], ["b"]),
        _node("Softmax", ["b"], ["y"]),
    ]
    weights = random_weights(table=(6, 8)) | {"one": np.float32(1), "lowest": _MASK}
    inputs = [
        helper.make_tensor_value_info("ids", _INT, [2, 3]),
        helper.make_tensor_value_info("keep", TensorProto.BOOL, [2, 3]),
    ]
    return make_model(nodes, inputs, [float_value("y", 2, 3)], weights, opset=13)


def _cast_like() -> ModelProto:
    nodes = [
        _node("Exp", ["x"], ["e"]),
        _node("CastLike", ["ids", "e"], ["f"]),
        _node("Mul", ["e", "f"], ["m"]),
        _node("Cast", ["m"], ["same"], to=_FLOAT),
        _node("Tanh", ["same"], ["y"]),
    ]
    inputs = [float_value("x", 2, 4), helper.make_tensor_value_info("ids", _INT, [2, 4])]
    return make_model(nodes, inputs, [float_value("y", 2, 4)], opset=18)


def _sequence() -> ModelProto:
    nodes = [
        _node("Exp", ["x"], ["e"]),
        _node("SplitToSequence", ["e"], ["parts"], axis=1),
        _node("SequenceAt", ["parts", "zero"], ["first"]),
        _node("ConcatFromSequence", ["parts"], ["whole"], axis=1),
        _node("Mul", ["whole", "first"], ["y"]),
    ]
    weights = {"zero": np.int64(0)}
    return make_model(nodes, [float_value("x", 2, 4)], [float_value("y", 2, 4)], weights, opset=13)


def _optional() -> ModelProto:
    nodes = [
        _node("Exp", ["x"], ["e"]),
        _node("Optional", ["e"], ["maybe"]),
        _node("OptionalGetElement", ["maybe"], ["surely"]),
        _node("Tanh", ["surely"], ["y"]),
    ]
    return make_model(nodes, [float_value("x", 2, 4)], [float_value("y", 2, 4)], opset=17)


def _double_part() -> ModelProto:
    nodes = [
        _node("Exp", ["x"], ["e"]),
        _node("Cast", ["e"], ["d"], to=TensorProto.DOUBLE),
        _node("Mul", ["d", "factor"], ["m"]),
        _node("Cast", ["m"], ["f"], to=_FLOAT),
        _node("Tanh", ["f"], ["y"]),
    ]
    weights = {"factor": np.float64(0.1)}
    return make_model(nodes, [float_value("x", 2, 4)], [float_value("y", 2, 4)], weights, opset=13)


def _half_part() -> ModelProto:
    nodes = [
        _node("MatMul", ["x", "w"], ["a"]),
        _node("Cast", ["a"], ["h"], to=TensorProto.FLOAT16),
        _node("Mul", ["h", "factor"], ["m"]),
        _node("Cast", ["m"], ["f"], to=_FLOAT),
        _node("Tanh", ["f"], ["y"]),
    ]
    weights = {"factor": np.float16(0.1)} | random_weights(w=(4, 4))
    return make_model(nodes, [float_value("x", 2, 4)], [float_value("y", 2, 4)], weights, opset=13)


def _inner_outputs() -> ModelProto:
    nodes = [
        _node("MatMul", ["x", "w"], ["inner"]),
        _node("Tanh", ["inner"], ["t"]),
        _node("Identity", ["t"], ["copy"]),
        _node("MatMul", ["t", "w"], ["y"]),
        _node("Identity", ["w"], ["weight"]),
    ]
    outputs = [
        float_value("y", 2, 4), float_value("inner", 2, 4), float_value("copy", 2, 4),
        float_value("weight", 4, 4),
    ]  # fmt: skip
    weights = random_weights(w=(4, 4))
    return make_model(nodes, [float_value("x", 2, 4)], outputs, weights, opset=13)


def _normalizations() -> ModelProto:
    nodes = [
        _node("InstanceNormalization", ["x", "scale", "shift"], ["i"]),
        _node("GroupNormalization", ["i", "gscale", "gshift"], ["g"], num_groups=2),
        _node("LpNormalization", ["g"], ["l"], axis=1),
        _node("Exp", ["l"], ["y"]),
    ]
    weights = random_weights(scale=(4,), shift=(4,), gscale=(4,), gshift=(4,))
    inputs, outputs = [float_value("x", 1, 4, 3, 3)], [float_value("y", 1, 4, 3, 3)]
    return make_model(nodes, inputs, outputs, weights, opset=21)


def _root_mean_square() -> ModelProto:
    nodes = [
        _node("Pow", ["x", "two"], ["p"]),
        _node("ReduceMean", ["p", "axes"], ["m"]),
        _node("Add", ["m", "epsilon"], ["a"]),
        _node("Sqrt", ["a"], ["s"]),
        _node("Reciprocal", ["s"], ["r"]),
        _node("Mul", ["x", "r"], ["y"]),
    ]
    weights = {"two": np.float32(2), "axes": np.array([-1]), "epsilon": np.float32(1e-8)}
    return make_model(nodes, [float_value("x", 2, 4)], [float_value("y", 2, 4)], weights, opset=18)


def _opset_23() -> ModelProto:
    nodes = [
        _node("RMSNormalization", ["x", "gamma"], ["n"]),
        _node("Gelu", ["n"], ["s"]),
        _node("MatMul", ["s", "w"], ["y"]),
    ]  # fmt: skip
    weights = random_weights(gamma=(8,), w=(8, 8))
    inputs, outputs = [float_value("x", 1, 3, 8)], [float_value("y", 1, 3, 8)]
    return make_model(nodes, inputs, outputs, weights, opset=23)


def _attention_operator() -> ModelProto:
    nodes = [_node("Attention", ["q", "k", "v"], ["a"]), _node("Tanh", ["a"], ["y"])]
    inputs = [float_value(name, 1, 2, 3, 4) for name in "qkv"]
    return make_model(nodes, inputs, [float_value("y", 1, 2, 3, 4)], opset=23)


def _detection() -> ModelProto:
    nodes = [
        _node("Sigmoid", ["boxes"], ["b"]),
        _node("Softmax", ["scores"], ["s"], axis=2),
        _node("NonMaxSuppression", ["b", "s", "most", "overlap"], ["picked"]),
        _node("TopK", ["s", "k"], ["y", "index"]),
    ]
    weights = {"most": np.array([3]), "overlap": np.array([0.5], np.float32), "k": np.array([2])}
    outputs = [
        float_value("y", 1, 2, 2),
        helper.make_tensor_value_info("picked", _INT, ["n", 3]),
        helper.make_tensor_value_info("index", _INT, [1, 2, 2]),
    ]
    inputs = [float_value("boxes", 1, 6, 4), float_value("scores", 1, 2, 6)]
    return make_model(nodes, inputs, outputs, weights, opset=11)


def _comparisons() -> ModelProto:
    nodes = [
        _node("Tanh", ["x"], ["t"]),
        _node("Greater", ["t", "tenth"], ["big"]),
        _node("Where", ["big", "t", "tenth"], ["w"]),
        _node("ArgMax", ["w"], ["i"], axis=1, keepdims=0),
        _node("OneHot", ["i", "depth", "values"], ["o"]),
        _node("IsNaN", ["w"], ["nan"]),
        _node("Cast", ["nan"], ["n"], to=_FLOAT),
        _node("Add", ["o", "n"], ["a"]),
        _node("Mul", ["a", "w"], ["y"]),
    ]
    weights = {
        "tenth": np.float32(0.1), "depth": np.int64(4), "values": np.array([0, 1], np.float32),
    }  # fmt: skip
    return make_model(nodes, [float_value("x", 2, 4)], [float_value("y", 2, 4)], weights, opset=13)


def _movement() -> ModelProto:
    nodes = [
        _node("Elu", ["x"], ["e"]),
        _node("Split", ["e"], ["l", "r"], axis=1),
        _node("Concat", ["r", "l", "c"], ["cat"], axis=1),
        _node("Slice", ["cat", "from", "to"], ["s"]),
        _node("Pad", ["s", "pads", "fill"], ["p"]),
        _node("Expand", ["p", "wide"], ["w"]),
        _node("Tile", ["w", "times"], ["t"]),
        _node("Unsqueeze", ["t", "zero"], ["u"]),
        _node("Squeeze", ["u", "zero"], ["q"]),
        _node("Max", ["q", "c1"], ["m"]),
        _node("ReduceMax", ["m"], ["rm"]),
        _node("Softmax", ["m"], ["y"]),
        _node("Neg", ["rm"], ["z"]),
    ]
    weights = random_weights(c=(2, 2), c1=(1,)) | {
        "from": np.array([0, 0]), "to": np.array([2, 5]), "pads": np.array([0, 1, 0, 0]),
        "fill": np.float32(0.3), "wide": np.array([1, 2, 6]), "times": np.array([1, 1, 2]),
        "zero": np.array([0]),
    }  # fmt: skip
    outputs = [float_value("y", 1, 2, 12), float_value("z", 1, 1, 1)]
    return make_model(nodes, [float_value("x", 2, 4)], outputs, weights, opset=13)


def _scatter_gather() -> ModelProto:
    nodes = [
        _node("Selu", ["x"], ["e"]),
        _node("GatherElements", ["e", "i"], ["g"], axis=1),
        _node("ScatterElements", ["e", "i", "g"], ["s"], axis=1),
        _node("ScatterElements", ["s", "i", "g"], ["a"], axis=1, reduction="add"),
        _node("ScatterND", ["a", "n", "u"], ["d"]),
        _node("GatherND", ["d", "n"], ["o"]),
        _node("Exp", ["o"], ["y"]),
    ]
    weights = random_weights(u=(1, 4)) | {"i": np.array([[0, 1], [1, 2]]), "n": np.array([[1]])}
    return make_model(nodes, [float_value("x", 2, 4)], [float_value("y", 1, 4)], weights, opset=18)


def _einsum() -> ModelProto:
    nodes = [
        _node("Einsum", ["x", "w"], ["e"], equation="bij,jk->bik"),
        _node("HardSwish", ["e"], ["h"]),
        _node("PRelu", ["h", "slope"], ["p"]),
        _node("ReduceL2", ["p"], ["y"], axes=[1], keepdims=0),
    ]
    weights = random_weights(w=(4, 4), slope=(4,))
    inputs, outputs = [float_value("x", 2, 3, 4)], [float_value("y", 2, 4)]
    return make_model(nodes, inputs, outputs, weights, opset=17)


def _grid_sample() -> ModelProto:
    nodes = [
        _node("Tanh", ["flow"], ["grid"]),
        _node("Exp", ["x"], ["e"]),
        _node("GridSample", ["e", "grid"], ["y"]),
    ]
    inputs = [float_value("x", 1, 2, 4, 4), float_value("flow", 1, 3, 3, 2)]
    return make_model(nodes, inputs, [float_value("y", 1, 2, 3, 3)], opset=17)


def _declared_weights() -> ModelProto:
    model = _convolutional()
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    return model


def _overridable_weight() -> ModelProto:
    model = _mlp()
    model.graph.input.append(float_value("w1", 8, 16))
    return model


def _contributed_operator() -> ModelProto:
    nodes = [
        _node("Exp", ["x"], ["e"]),
        _node("QuickGelu", ["e"], ["g"], domain="com.microsoft"),
        _node("Mul", ["g", "e"], ["y"]),
    ]
    return make_model(nodes, [float_value("x", 2, 4)], [float_value("y", 2, 4)], opset=17,
                      domains=["com.microsoft"])  # fmt: skip


def _extreme_weights() -> ModelProto:
    nodes = [_node("Mul", ["x", "w"], ["m"]), _node("Tanh", ["m"], ["y"])]
    weights = {"w": np.array([1e6, -7e4, 65504, 1e-9], np.float32)}
    return make_model(nodes, [float_value("x", 2, 4)], [float_value("y", 2, 4)], weights, opset=13)


def _dynamic_shapes() -> ModelProto:
    model = _mlp()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


ZOO: dict[str, Callable[[], ModelProto]] = {
    "attention block, opset 17": _attention_block,
    "attention operator, opset 23": _attention_operator,
    "batch normalization, opset 17": _batch_normalization_17,
    "cast like": _cast_like,
    "celu without half kernel": lambda: _without_half_kernel("Celu", 13),
    "clashing and empty names": _clashing_names,
    "comparisons": _comparisons,
    "conditional": _conditional,
    "constant nodes": _constant_nodes,
    "constant of shape": _constant_of_shape,
    "contributed operator": _contributed_operator,
    "convolutional, opset 11": _convolutional,
    "cumulative sum without half kernel": lambda: _without_half_kernel("CumSum", 11),
    "declared weights": _declared_weights,
    "detection": _detection,
    "double part": _double_part,
    "dynamic shapes": _dynamic_shapes,
    "einsum": _einsum,
    "embedding": _embedding,
    "extreme weights": _extreme_weights,
    "float shape arithmetic": _float_shape_arithmetic,
    "foreign local function": _foreign_function,
    "grid sample": _grid_sample,
    "half part": _half_part,
    "inner outputs": _inner_outputs,
    "large weights": _large_mlp,
    "local functions": _local_functions,
    "loop": _loop,
    "movement": _movement,
    "multilayer perceptron": _mlp,
    "nested bodies": _nested_bodies,
    "normalizations, opset 21": _normalizations,
    "opset 23": _opset_23,
    "optional operands": _optional_operands,
    "optional": _optional,
    "overridable weight": _overridable_weight,
    "quantized with a tiny scale": _quantized_tiny_scale,
    "quantized, opset 13": lambda: _quantized(13),
    "quantized, opset 21": lambda: _quantized(21),
    "quantized, opset 23": lambda: _quantized(23),
    "random draws": _random_draws,
    "range": _range,
    "recurrent GRU": lambda: _recurrent("GRU", 3, 17),
    "recurrent LSTM": lambda: _recurrent("LSTM", 4, 11, both_ways=True),
    "recurrent RNN": lambda: _recurrent("RNN", 1, 21),
    "resize, opset 11": lambda: _resize(11),
    "resize, opset 18": lambda: _resize(18),
    "root mean square": _root_mean_square,
    "scan": _scan,
    "scatter and gather": _scatter_gather,
    "sequence": _sequence,
    "shared weight": _shared_weight,
    "statistics outputs": _statistics_outputs,
    "transposed recurrent": _transposed_recurrent,
    "u-net": _u_net,
}
"""Builders by what they are about."""
