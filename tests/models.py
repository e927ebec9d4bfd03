"""Small ONNX models for the tests, each built in code, with explicit names and seeded weights."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from tests.hazard_models import (
    MASK_FILL,
    additive_mask,
    cancellation,
    decomposed_layer_norm,
    harmless_large_values,
    infinity_minus_infinity,
    long_reduction,
    overflow_then_recovery,
    underflow,
)
from tests.model_parts import (
    build_model,
    node,
    normal,
    sample_inputs,
    save_with_external_data,
    scalar,
    tensor,
)
from tests.structure_models import (
    constant_nodes,
    custom_domain,
    dynamic_shapes,
    float16_part,
    float64_part,
    integer_output,
    no_float_layer,
    odd_names,
    optional_tensors,
    quantize_dequantize,
    random_numbers,
    sequences,
    shared_weight,
    unsorted_nodes,
)
from tests.subgraph_models import (
    if_with_capture,
    local_function,
    loop_with_capture,
    scan_with_capture,
)

__all__ = [
    "MASK_FILL",
    "RUNNABLE",
    "additive_mask",
    "build_model",
    "cancellation",
    "chain",
    "constant_nodes",
    "custom_domain",
    "decomposed_layer_norm",
    "dynamic_shapes",
    "float16_part",
    "float64_part",
    "harmless_large_values",
    "if_with_capture",
    "infinity_minus_infinity",
    "integer_output",
    "local_function",
    "long_reduction",
    "loop_with_capture",
    "no_float_layer",
    "node",
    "normal",
    "odd_names",
    "optional_tensors",
    "overflow_then_recovery",
    "quantize_dequantize",
    "random_numbers",
    "sample_inputs",
    "save_with_external_data",
    "scalar",
    "scan_with_capture",
    "sequences",
    "shared_weight",
    "small_cnn",
    "small_transformer",
    "tensor",
    "underflow",
    "unsorted_nodes",
]


def small_cnn() -> onnx.ModelProto:
    """Returns a CNN of two convolutions with a residual connection and a classifier."""
    nodes = [
        node("Conv", ["image", "w1", "b1"], "c1", name="/conv1/Conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], "r1", name="/relu1/Relu"),
        node("Conv", ["r1", "w2", "b2"], "c2", name="/conv2/Conv", pads=[1, 1, 1, 1]),
        node("Add", ["c2", "r1"], "a2", name="/Add"),
        node("MaxPool", ["a2"], "p2", name="/pool/MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["p2"], "g2", name="/avgpool/GlobalAveragePool"),
        node("Flatten", ["g2"], "f2", name="/Flatten"),
        node("Gemm", ["f2", "w3", "b3"], "logits", name="/fc/Gemm", transB=1),
    ]
    weights = {
        "w1": normal(1, 8, 3, 3, 3, scale=27**-0.5),
        "b1": normal(2, 8, scale=0.1),
        "w2": normal(3, 8, 8, 3, 3, scale=72**-0.5),
        "b2": normal(4, 8, scale=0.1),
        "w3": normal(5, 10, 8, scale=8**-0.5),
        "b3": normal(6, 10, scale=0.1),
    }
    inputs = [tensor("image", ["batch", 3, 16, 16])]
    return build_model(nodes, inputs, [tensor("logits", ["batch", 10])], weights)


def small_transformer(width: int = 16, vocabulary: int = 32) -> onnx.ModelProto:
    """Returns one encoder block: ids and mask in, `hidden` of shape `(batch, sequence, width)`."""
    nodes = [
        node("Gather", ["table", "ids"], "embedded", name="/embeddings/Gather"),
        node("LayerNormalization", ["embedded", "g0", "n0"], "h0", name="/embeddings/norm"),
        *_attention_nodes(),
        node("Add", ["attended", "h0"], "r1", name="/attention/Add"),
        node("LayerNormalization", ["r1", "g1", "n1"], "h1", name="/attention/norm"),
        node("MatMul", ["h1", "w_up"], "up", name="/mlp/up/MatMul"),
        node("Relu", ["up"], "active", name="/mlp/Relu"),
        node("MatMul", ["active", "w_down"], "down", name="/mlp/down/MatMul"),
        node("Add", ["down", "h1"], "r2", name="/mlp/Add"),
        node("LayerNormalization", ["r2", "g2", "n2"], "hidden", name="/mlp/norm"),
    ]
    scale = width**-0.5
    weights = {
        "table": normal(0, vocabulary, width),
        "w_up": normal(1, width, 4 * width, scale=scale),
        "w_down": normal(2, 4 * width, width, scale=scale / 2),
        "root": scalar(width**0.5),
        "one": scalar(1.0),
        "fill": scalar(MASK_FILL),
        "mask_axis": np.array([1], np.int64),
    }
    for index, name in enumerate(("w_query", "w_key", "w_value")):
        weights[name] = normal(3 + index, width, width, scale=scale)
    for index in range(3):
        weights[f"g{index}"] = np.ones(width, np.float32)
        weights[f"n{index}"] = np.zeros(width, np.float32)
    inputs = [tensor(name, ["batch", "sequence"], TensorProto.INT64) for name in ("ids", "mask")]
    return build_model(nodes, inputs, [tensor("hidden", ["batch", "sequence", width])], weights)


def chain(length: int, width: int = 4) -> onnx.ModelProto:
    """Returns `length` nodes in a row, Mul, Add and Tanh in turn, named `node_0`, `node_1`, …."""
    nodes = []
    for index in range(length):
        operator, weight = (("Mul", ["factor"]), ("Add", ["shift"]), ("Tanh", []))[index % 3]
        source = f"t{index - 1}" if index else "x"
        nodes.append(node(operator, [source, *weight], f"t{index}", name=f"node_{index}"))
    weights = {
        "factor": np.linspace(0.9, 1.3, width, dtype=np.float32),
        "shift": np.linspace(-0.2, 0.3, width, dtype=np.float32),
    }
    outputs = [tensor(f"t{length - 1}", [2, width])]
    return build_model(nodes, [tensor("x", [2, width])], outputs, weights)


def _attention_nodes() -> list[onnx.NodeProto]:
    prefix = "/attention/self"
    projections = [
        node("MatMul", ["h0", f"w_{role}"], role, name=f"{prefix}/{role}/MatMul")
        for role in ("query", "key", "value")
    ]
    return [
        node("Cast", ["mask"], "mask_float", name="/mask/Cast", to=TensorProto.FLOAT),
        node("Sub", ["one", "mask_float"], "hidden_positions", name="/mask/Sub"),
        node("Mul", ["hidden_positions", "fill"], "bias_flat", name="/mask/Mul"),
        node("Unsqueeze", ["bias_flat", "mask_axis"], "bias", name="/mask/Unsqueeze"),
        *projections,
        node("Transpose", ["key"], "key_t", name=f"{prefix}/Transpose", perm=[0, 2, 1]),
        node("MatMul", ["query", "key_t"], "raw_scores", name=f"{prefix}/MatMul"),
        node("Div", ["raw_scores", "root"], "scores", name=f"{prefix}/Div"),
        node("Add", ["scores", "bias"], "masked", name=f"{prefix}/Add"),
        node("Softmax", ["masked"], "probabilities", name=f"{prefix}/Softmax", axis=-1),
        node("MatMul", ["probabilities", "value"], "attended", name=f"{prefix}/MatMul_1"),
    ]


RUNNABLE = (
    additive_mask,
    cancellation,
    constant_nodes,
    decomposed_layer_norm,
    dynamic_shapes,
    float16_part,
    float64_part,
    harmless_large_values,
    if_with_capture,
    infinity_minus_infinity,
    integer_output,
    local_function,
    long_reduction,
    loop_with_capture,
    no_float_layer,
    optional_tensors,
    overflow_then_recovery,
    quantize_dequantize,
    scan_with_capture,
    sequences,
    shared_weight,
    small_cnn,
    small_transformer,
    underflow,
)
"""Valid models that give the same numbers in each run."""
