"""Writes a small transformer in which two FP16 hazards are planted, and inputs for it.

Usage: python make_demo_model.py OUTPUT_DIR

The model classifies token sequences: two encoder blocks of width 64, about 0.5 MB. In FP32 it is
well behaved. In FP16
- the LayerNormalization of `/blocks.0/attention/norm` overflows: it is written in primitive ops, as
  exporters do, and squares values of several hundred;
- `/blocks.1/shift` loses its signal: it computes `(x + 400) - 400` for |x| near 0.02.
Everything else is fine in FP16.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["build_inputs", "build_model", "main"]

BATCH, SEQUENCE, VOCABULARY, WIDTH, HEADS, CLASSES = 4, 16, 200, 64, 4, 10
BLOCKS = 2
HEAD_WIDTH = WIDTH // HEADS

ATTENTION_SPREAD = 600.0
"""Standard deviation of what the first attention block adds: squared, it passes 65504."""

SHIFT = 400.0
"""FP16 numbers near 400 are 0.25 apart."""

SHIFTED_SCALE = 0.02
"""Size of what is added to `SHIFT`: less than half of that distance."""

PLANTED = (
    ("overflow", "/blocks.0/attention/norm/Pow", "squares of |x| > 256 pass 65504"),
    ("overflow", "/blocks.0/attention/norm/ReduceMean_1", "their mean passes 65504"),
    ("overflow", "/blocks.0/attention/norm/Add", "the mean plus epsilon passes 65504"),
    ("cancellation", "/blocks.1/shift/Add", "x + 400 swallows |x| near 0.02"),
    ("cancellation", "/blocks.1/shift/Sub", "- 400 shows what is left: nothing"),
)


def main() -> None:
    """Writes `demo.onnx` and `demo_inputs.npz` to the folder named on the command line."""
    parser = argparse.ArgumentParser(description="Write a model with planted FP16 hazards.")
    parser.add_argument("output_dir", type=Path, help="Folder to write to; made if need be.")
    folder = parser.parse_args().output_dir
    folder.mkdir(parents=True, exist_ok=True)
    model_path, inputs_path = folder / "demo.onnx", folder / "demo_inputs.npz"
    model = build_model()
    model_path.write_bytes(model.SerializeToString(deterministic=True))
    arrays: dict[str, Any] = {**build_inputs()}
    np.savez(inputs_path, **arrays)
    print(f"Wrote {model_path}: {len(model.graph.node)} nodes, {model_path.stat().st_size} bytes")
    print(f"Wrote {inputs_path}: token ids and attention mask of {BATCH} sequences")
    print("Planted:")
    for kind, name, reason in PLANTED:
        print(f"  {kind:<12} {name:<38} {reason}")


def build_inputs() -> dict[str, npt.NDArray[np.int64]]:
    """Returns `input_ids` and `attention_mask`, int64, shape `(BATCH, SEQUENCE)`."""
    ids = np.random.default_rng(1).integers(1, VOCABULARY, (BATCH, SEQUENCE))
    lengths = SEQUENCE - 2 * np.arange(BATCH)
    mask = (np.arange(SEQUENCE) < lengths[:, np.newaxis]).astype(np.int64)
    return {"input_ids": ids * mask, "attention_mask": mask}


def build_model() -> onnx.ModelProto:
    """Returns the model: `logits`, float32, shape `(BATCH, CLASSES)`, from ids and mask."""
    graph = _Graph()
    bias = _attention_bias(graph)
    table = graph.weight("embeddings.weight", (VOCABULARY, WIDTH), 1.0)
    tokens = graph.add("Gather", [table, "input_ids"], "/embeddings/Gather")
    positions = graph.weight("embeddings.position", (SEQUENCE, WIDTH), 0.5)
    embedded = graph.add("Add", [tokens, positions], "/embeddings/Add")
    hidden = _layer_norm(graph, embedded, "/embeddings/norm")
    for block in range(BLOCKS):
        hidden = _encoder_block(graph, hidden, bias, block)
    pooled = graph.add("ReduceMean", [hidden], "/pool/ReduceMean", axes=[1], keepdims=0)
    weight = graph.weight("classifier.weight", (WIDTH, CLASSES), WIDTH**-0.5)
    graph.add("Gemm", [pooled, weight, graph.zeros("classifier.bias", CLASSES)], "/classifier/Gemm")
    graph.nodes[-1].output[0] = "logits"
    return _finish(graph)


class _Graph:
    """Nodes and weights so far. Every node writes one tensor, named after the node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}
        self._random = np.random.default_rng(0)

    def add(self, operator: str, inputs: list[str], name: str, **attributes: object) -> str:
        node = helper.make_node(operator, inputs, [f"{name}_output_0"], name=name)
        made = (helper.make_attribute(key, attributes[key]) for key in sorted(attributes))
        node.attribute.extend(made)
        self.nodes.append(node)
        return f"{name}_output_0"

    def weight(self, name: str, shape: tuple[int, ...], spread: float) -> str:
        values = self._random.standard_normal(shape, dtype=np.float32) * np.float32(spread)
        return self.constant(name, values)

    def zeros(self, name: str, size: int) -> str:
        return self.constant(name, np.zeros(size, np.float32))

    def scalar(self, value: float) -> str:
        return self.constant(f"constant_{value:g}", np.array(value, np.float32))

    def constant(self, name: str, values: npt.NDArray[np.generic]) -> str:
        self.weights[name] = numpy_helper.from_array(values, name)
        return name


def _attention_bias(graph: _Graph) -> str:
    prefix = "/mask"
    axes = graph.constant("mask_axes", np.array([1, 2], np.int64))
    wide = graph.add("Unsqueeze", ["attention_mask", axes], f"{prefix}/Unsqueeze")
    kept = graph.add("Cast", [wide], f"{prefix}/Cast", to=TensorProto.FLOAT)
    masked = graph.add("Sub", [graph.scalar(1.0), kept], f"{prefix}/Sub")
    return graph.add("Mul", [masked, graph.scalar(-1e4)], f"{prefix}/Mul")


def _encoder_block(graph: _Graph, hidden: str, bias: str, block: int) -> str:
    prefix = f"/blocks.{block}"
    spread = ATTENTION_SPREAD if block == 0 else 1.0
    attended = _attention(graph, hidden, bias, f"{prefix}/attention", spread)
    residual = graph.add("Add", [attended, hidden], f"{prefix}/attention/Add")
    middle = _layer_norm(graph, residual, f"{prefix}/attention/norm")
    source = _shift(graph, middle, f"{prefix}/shift") if block == 1 else middle
    up = _linear(graph, source, f"{prefix}/mlp/up", (WIDTH, 4 * WIDTH), 1.5)
    active = graph.add("Relu", [up], f"{prefix}/mlp/Relu")
    down = _linear(graph, active, f"{prefix}/mlp/down", (4 * WIDTH, WIDTH), 1.5)
    result = graph.add("Add", [down, middle], f"{prefix}/mlp/Add")
    return _layer_norm(graph, result, f"{prefix}/mlp/norm")


def _attention(graph: _Graph, hidden: str, bias: str, prefix: str, spread: float) -> str:
    query, key, value = (
        _split_heads(graph, hidden, f"{prefix}/{role}", [0, 2, 3, 1] if role == "key" else None)
        for role in ("query", "key", "value")
    )
    raw = graph.add("MatMul", [query, key], f"{prefix}/MatMul")
    scores = graph.add("Div", [raw, graph.scalar(HEAD_WIDTH**0.5)], f"{prefix}/Div")
    masked = graph.add("Add", [scores, bias], f"{prefix}/Add_1")
    probabilities = graph.add("Softmax", [masked], f"{prefix}/Softmax", axis=-1)
    mixed = graph.add("MatMul", [probabilities, value], f"{prefix}/MatMul_1")
    joined = graph.add("Transpose", [mixed], f"{prefix}/Transpose", perm=[0, 2, 1, 3])
    shape = graph.constant("joined_shape", np.array([0, 0, WIDTH], np.int64))
    flat = graph.add("Reshape", [joined, shape], f"{prefix}/Reshape")
    return _linear(graph, flat, f"{prefix}/output", (WIDTH, WIDTH), spread)


def _split_heads(graph: _Graph, hidden: str, prefix: str, order: list[int] | None) -> str:
    projected = _linear(graph, hidden, prefix, (WIDTH, WIDTH), 1.0)
    shape = graph.constant("head_shape", np.array([0, 0, HEADS, HEAD_WIDTH], np.int64))
    heads = graph.add("Reshape", [projected, shape], f"{prefix}/Reshape")
    return graph.add("Transpose", [heads], f"{prefix}/Transpose", perm=order or [0, 2, 1, 3])


def _linear(graph: _Graph, source: str, prefix: str, shape: tuple[int, int], gain: float) -> str:
    name = prefix.strip("/").replace("/", ".")
    weight = graph.weight(f"{name}.weight", shape, gain * shape[0] ** -0.5)
    product = graph.add("MatMul", [source, weight], f"{prefix}/MatMul")
    return graph.add("Add", [product, graph.zeros(f"{name}.bias", shape[1])], f"{prefix}/Add")


def _shift(graph: _Graph, source: str, prefix: str) -> str:
    small = graph.add("Mul", [source, graph.scalar(SHIFTED_SCALE)], f"{prefix}/Mul")
    lifted = graph.add("Add", [small, graph.scalar(SHIFT)], f"{prefix}/Add")
    lowered = graph.add("Sub", [lifted, graph.scalar(SHIFT)], f"{prefix}/Sub")
    return graph.add("Mul", [lowered, graph.scalar(1 / SHIFTED_SCALE)], f"{prefix}/Mul_1")


def _layer_norm(graph: _Graph, source: str, prefix: str) -> str:
    name = prefix.strip("/").replace("/", ".")
    mean = graph.add("ReduceMean", [source], f"{prefix}/ReduceMean", axes=[-1])
    centred = graph.add("Sub", [source, mean], f"{prefix}/Sub")
    squared = graph.add("Pow", [centred, graph.scalar(2.0)], f"{prefix}/Pow")
    variance = graph.add("ReduceMean", [squared], f"{prefix}/ReduceMean_1", axes=[-1])
    stable = graph.add("Add", [variance, graph.scalar(1e-5)], f"{prefix}/Add")
    deviation = graph.add("Sqrt", [stable], f"{prefix}/Sqrt")
    normal = graph.add("Div", [centred, deviation], f"{prefix}/Div")
    gamma = graph.constant(f"{name}.weight", np.linspace(0.8, 1.2, WIDTH, dtype=np.float32))
    scaled = graph.add("Mul", [normal, gamma], f"{prefix}/Mul")
    return graph.add("Add", [scaled, graph.zeros(f"{name}.bias", WIDTH)], f"{prefix}/Add_1")


def _finish(graph: _Graph) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, [BATCH, SEQUENCE])
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [BATCH, CLASSES])]
    weights = list(graph.weights.values())
    model = helper.make_model(
        helper.make_graph(graph.nodes, "demo", inputs, outputs, weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="make_demo_model",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    main()
