"""Small quantised models, pairs put in by a few lines of our own; and the float models before."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from tests.model_parts import build_model, node, normal, tensor

__all__ = [
    "GRANULARITIES",
    "cnn",
    "cnn_inputs",
    "in_fp16",
    "mlp",
    "mlp_inputs",
    "quantised",
    "run_whole",
]

LARGEST = {TensorProto.INT8: 127.0, TensorProto.FLOAT8E4M3FN: 448.0}
GRANULARITIES = ("tensor", "channel", "block")
QUANTISED_OPS = frozenset({"Conv", "Gemm", "MatMul", "Add", "MaxPool"})


def cnn(opset=17):
    """Two convolutions, a residual addition, pooling and a classifier."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], "c1", name="/stem/Conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], "r1", name="/stem/Relu"),
        node("Conv", ["r1", "w2", "b2"], "c2", name="/body/Conv", pads=[1, 1, 1, 1]),
        node("Add", ["c2", "r1"], "sum", name="/body/Add"),
        node("MaxPool", ["sum"], "pooled", name="/pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["pooled", "w3", "b3"], "c3", name="/head/Conv"),
        node("GlobalAveragePool", ["c3"], "mean", name="/head/mean"),
        node("Flatten", ["mean"], "flat", name="/head/Flatten"),
        node("Gemm", ["flat", "wf", "bf"], "y", name="/head/Gemm"),
    ]
    weights = {
        "w1": normal(1, 8, 3, 3, 3, scale=0.3),
        "b1": normal(2, 8, scale=0.1),
        "w2": normal(3, 8, 8, 3, 3, scale=0.2),
        "b2": normal(4, 8, scale=0.1),
        "w3": normal(5, 16, 8, 1, 1, scale=0.3),
        "b3": normal(6, 16, scale=0.1),
        "wf": normal(7, 16, 8, scale=0.3),
        "bf": normal(8, 8, scale=0.1),
    }
    x, y = tensor("x", [4, 3, 8, 8]), tensor("y", [4, 8])
    return build_model(nodes, [x], [y], weights, opset=opset)


def cnn_inputs(seed=0):
    return {"x": normal(100 + seed, 4, 3, 8, 8)}


def mlp(opset=21):
    """Products alone, so that scales may be of blocks; an input that three products share."""
    nodes = [
        node("MatMul", ["x", "wq"], "q", name="/attention/q"),
        node("MatMul", ["x", "wk"], "k", name="/attention/k"),
        node("Add", ["q", "k"], "h", name="/attention/Add"),
        node("Relu", ["h"], "r", name="/Relu"),
        node("MatMul", ["r", "wo"], "y", name="/out"),
    ]
    weights = {
        "wq": normal(1, 16, 16, scale=0.3),
        "wk": normal(2, 16, 16, scale=0.3),
        "wo": normal(3, 16, 8, scale=0.3),
    }
    x, y = tensor("x", [32, 16]), tensor("y", [32, 8])
    return build_model(nodes, [x], [y], weights, opset=opset)


def mlp_inputs(seed=0):
    return {"x": normal(200 + seed, 32, 16)}


def run_whole(model, inputs, names=None):
    """Runs a model in one session of ONNX-Runtime's that changes nothing in it."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    source = model if isinstance(model, str) else model.SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = names or [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def values_of(model, inputs):
    """Every tensor that a model makes."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    known = {output.name for output in model.graph.output}
    for made in (name for one in model.graph.node for name in one.output):
        if made not in known:
            wide.graph.output.append(onnx.ValueInfoProto(name=made))
    return {**inputs, **run_whole(wide, inputs)}


class Quantiser:
    """Puts pairs in front of what operators take, and stores constants quantised."""

    def __init__(self, model, values, *, kind, granularity, stored, ops):
        self.model, self.values, self.kind = model, values, kind
        self.granularity, self.stored, self.ops = granularity, stored, ops
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.tensors = dict(self.constants)
        self.nodes, self.pairs = [], {}

    def run(self):
        for old in self.model.graph.node:
            new = onnx.NodeProto()
            new.CopyFrom(old)
            for position, name in enumerate(old.input):
                is_bias = position == 2
                if old.op_type in self.ops and not is_bias:
                    new.input[position] = self.pair(name, old.op_type)
            self.nodes.append(new)
        result = onnx.ModelProto()
        result.CopyFrom(self.model)
        del result.graph.node[:], result.graph.initializer[:]
        result.graph.node.extend(self.nodes)
        read = {name for one in self.nodes for name in one.input}
        result.graph.initializer.extend(
            self.tensors[n] if isinstance(self.tensors[n], TensorProto)
            else numpy_helper.from_array(self.tensors[n], n)
            for n in self.tensors if n in read
        )  # fmt: skip
        return result

    def pair(self, name, op):
        if name in self.pairs:
            return self.pairs[name]
        is_constant = name in self.constants
        scale, attributes = self.scale(self.values.get(name, self.constants.get(name)), op, name)
        self.tensors[f"{name}_scale"] = scale
        zeros = np.zeros(scale.shape, np.float32)
        self.tensors[f"{name}_zero"] = self.packed(zeros, f"{name}_zero")
        parameters = [f"{name}_scale", f"{name}_zero"]
        quantised, output = f"{name}_quantized", f"{name}_DequantizeLinear_Output"
        make = node(
            "QuantizeLinear", [name, *parameters], quantised, name=f"{name}/Q", **attributes
        )
        if is_constant and self.stored:
            integers = run_whole(self.alone(make), {})[quantised + "_float"]
            self.tensors[quantised] = self.packed(integers, quantised)
        else:
            self.nodes.append(make)
        back = node("DequantizeLinear", [quantised, *parameters], output, name=f"{name}/DQ",
                    **attributes)  # fmt: skip
        self.nodes.append(back)
        self.pairs[name] = output
        return output

    def alone(self, make):
        """A model that quantises a constant: the result in floats, since numpy lacks FP8."""
        cast = node("Cast", [make.output[0]], f"{make.output[0]}_float", to=TensorProto.FLOAT)
        taken = {n: self.tensors[n] for n in make.input}
        tensors = [v if isinstance(v, TensorProto) else numpy_helper.from_array(v, n)
                   for n, v in taken.items()]  # fmt: skip
        graph = helper.make_graph(
            [make, cast], "alone", [], [onnx.ValueInfoProto(name=cast.output[0])], tensors
        )
        return helper.make_model(
            graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version
        )

    def packed(self, values, name):
        wide = np.asarray(values, np.float32)
        return helper.make_tensor(name, self.kind, wide.shape, wide.reshape(-1).tolist())

    def scale(self, values, op, name):
        magnitudes, largest = np.abs(values), LARGEST[self.kind]
        if self.granularity == "tensor" or (self.granularity == "channel"
                                            and name not in self.constants):  # fmt: skip
            return np.float32(magnitudes.max() / largest), {}
        if self.granularity == "channel":
            axis = 0 if op == "Conv" else 1
            others = tuple(a for a in range(values.ndim) if a != axis)
            return (magnitudes.max(axis=others) / largest).astype(np.float32), {"axis": axis}
        blocks = magnitudes.reshape(-1, 8, values.shape[-1]).max(axis=1)
        return (blocks / largest).astype(np.float32), {"axis": 0, "block_size": 8}


def quantised(
    model, inputs, *, kind=TensorProto.INT8, granularity="channel", stored=True, ops=QUANTISED_OPS
):
    """Returns a model with pairs whose scales fit what `inputs` give.

    Args:
        model: A float model.
        inputs: A sample.
        kind: Element type of the pairs.
        granularity: Of the scales: one of `GRANULARITIES`.
        stored: Whether constants are held quantised alone, and not as floats with a pair each.
        ops: Operators whose inputs get pairs.
    """
    values = values_of(model, inputs)
    made = Quantiser(
        model, values, kind=kind, granularity=granularity, stored=stored, ops=ops
    ).run()
    onnx.checker.check_model(made)
    return made


def in_fp16(model):
    """A quantised model that computes in FP16 around its pairs, inputs and outputs in FP32."""
    half = TensorProto.FLOAT16
    for constant in model.graph.initializer:
        if constant.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(constant).astype(np.float16)
            constant.CopyFrom(numpy_helper.from_array(values, constant.name))
    for one in model.graph.node:
        one.input[:] = ["x16" if name == "x" else name for name in one.input]
        one.output[:] = ["y16" if name == "y" else name for name in one.output]
    model.graph.node.insert(0, node("Cast", ["x"], "x16", name="/in", to=half))
    model.graph.node.append(node("Cast", ["y16"], "y", name="/out/Cast", to=TensorProto.FLOAT))
    return model
