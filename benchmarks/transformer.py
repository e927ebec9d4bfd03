"""A BERT-like encoder with random weights, written as PyTorch's exporter writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.graph_writer import GraphWriter

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

__all__ = ["BERT_BASE", "BERT_LARGE", "EncoderShape", "encoder_inputs", "write_encoder"]

_WEIGHT_SPREAD = 0.02
_MASK_FILL = float(np.finfo(np.float32).min)


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """The sizes of an encoder and of its input."""

    layers: int
    """Number of encoder layers."""

    hidden: int
    """Width of the residual stream; a multiple of `heads`."""

    heads: int
    """Number of attention heads."""

    intermediate: int
    """Width inside the feed-forward part."""

    vocab: int
    """Number of tokens in the embedding table."""

    seq: int = 128
    """Tokens per sequence."""

    batch: int = 1
    """Sequences per sample."""


BERT_BASE = EncoderShape(12, 768, 12, 3072, 30522)
BERT_LARGE = EncoderShape(24, 1024, 16, 4096, 30522)


def encoder_inputs(shape: EncoderShape, seed: int) -> dict[str, npt.NDArray[Any]]:
    """Returns ids, mask and token types, int64, shape `(batch, seq)`; the last tenth is padding."""
    ids = np.random.default_rng(seed).integers(1, shape.vocab, (shape.batch, shape.seq))
    mask = np.ones_like(ids)
    mask[:, shape.seq - shape.seq // 10 :] = 0
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def write_encoder(path: Path, shape: EncoderShape, *, external: bool) -> None:
    """Writes the encoder; its outputs are `last_hidden_state` and `pooler_output`."""
    with GraphWriter(path, external=external) as graph:
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            graph.input(name, np.int64, (shape.batch, shape.seq))
        bias = _mask_bias(graph)
        hidden = _embeddings(graph, shape)
        for layer in range(shape.layers):
            hidden = _layer(graph, shape, hidden, bias, f"/encoder/layer.{layer}")
        graph.output(hidden, (shape.batch, shape.seq, shape.hidden))
        _pooler(graph, shape, hidden)
        graph.output("pooler_output", (shape.batch, shape.hidden))


def _mask_bias(graph: GraphWriter) -> str:
    axes = graph.weight("mask_axes", np.array([1, 2], np.int64))
    wide = graph.add("Unsqueeze", ["attention_mask", axes], "/Unsqueeze")
    kept = graph.add("Cast", [wide], "/Cast", to=1)
    masked = graph.add("Sub", [graph.scalar(1.0), kept], "/Sub")
    fill = graph.weight("mask_fill", np.array(_MASK_FILL, np.float32))
    return graph.add("Mul", [masked, fill], "/Mul")


def _embeddings(graph: GraphWriter, shape: EncoderShape) -> str:
    prefix = "/embeddings"
    tables = (
        ("word", "input_ids", shape.vocab),
        ("token_type", "token_type_ids", 2),
        ("position", _position_ids(graph, shape), max(512, shape.seq)),
    )
    parts = []
    for kind, ids, rows in tables:
        name = f"embeddings.{kind}_embeddings.weight"
        table = graph.random_weight(name, (rows, shape.hidden), _WEIGHT_SPREAD)
        parts.append(graph.add("Gather", [table, ids], f"{prefix}/{kind}_embeddings/Gather"))
    total = graph.add("Add", parts[:2], f"{prefix}/Add")
    total = graph.add("Add", [total, parts[2]], f"{prefix}/Add_1")
    return _norm(graph, shape, total, f"{prefix}/LayerNorm")


def _position_ids(graph: GraphWriter, shape: EncoderShape) -> str:
    return graph.weight("position_ids", np.arange(shape.seq)[np.newaxis])


def _layer(graph: GraphWriter, shape: EncoderShape, hidden: str, bias: str, prefix: str) -> str:
    attended = _attention(graph, shape, hidden, bias, f"{prefix}/attention/self")
    width, inner = shape.hidden, shape.intermediate
    output = f"{prefix}/attention/output"
    dense = _linear(graph, attended, f"{output}/dense", (width, width))
    residual = graph.add("Add", [dense, hidden], f"{output}/Add")
    middle = _norm(graph, shape, residual, f"{output}/LayerNorm")
    up = _linear(graph, middle, f"{prefix}/intermediate/dense", (width, inner))
    active = _gelu(graph, up, f"{prefix}/intermediate/intermediate_act_fn")
    down = _linear(graph, active, f"{prefix}/output/dense", (inner, width))
    result = graph.add("Add", [down, middle], f"{prefix}/output/Add")
    return _norm(graph, shape, result, f"{prefix}/output/LayerNorm")


def _attention(graph: GraphWriter, shape: EncoderShape, hidden: str, bias: str, prefix: str) -> str:
    head_width = shape.hidden // shape.heads
    split = graph.weight("head_shape", np.array([0, 0, shape.heads, head_width], np.int64))
    heads = []
    for index, role in enumerate(("query", "key", "value")):
        projected = _linear(graph, hidden, f"{prefix}/{role}", (shape.hidden, shape.hidden))
        parts = graph.add("Reshape", [projected, split], f"{prefix}/Reshape_{index}")
        order = [0, 2, 3, 1] if role == "key" else [0, 2, 1, 3]
        heads.append(graph.add("Transpose", [parts], f"{prefix}/Transpose_{index}", perm=order))
    query, key, value = heads
    raw = graph.add("MatMul", [query, key], f"{prefix}/MatMul")
    scores = graph.add("Div", [raw, graph.scalar(head_width**0.5)], f"{prefix}/Div")
    masked = graph.add("Add", [scores, bias], f"{prefix}/Add")
    probabilities = graph.add("Softmax", [masked], f"{prefix}/Softmax", axis=-1)
    mixed = graph.add("MatMul", [probabilities, value], f"{prefix}/MatMul_1")
    joined = graph.add("Transpose", [mixed], f"{prefix}/Transpose_3", perm=[0, 2, 1, 3])
    flat = graph.weight("joined_shape", np.array([0, 0, shape.hidden], np.int64))
    return graph.add("Reshape", [joined, flat], f"{prefix}/Reshape_3")


def _linear(graph: GraphWriter, source: str, prefix: str, shape: tuple[int, int]) -> str:
    name = _parameter(prefix)
    weight = graph.random_weight(f"{name}.weight", shape, _WEIGHT_SPREAD)
    product = graph.add("MatMul", [source, weight], f"{prefix}/MatMul")
    bias = graph.random_weight(f"{name}.bias", shape[1:], _WEIGHT_SPREAD)
    return graph.add("Add", [bias, product], f"{prefix}/Add")


def _gelu(graph: GraphWriter, source: str, prefix: str) -> str:
    scaled = graph.add("Div", [source, graph.scalar(2**0.5)], f"{prefix}/Div")
    error = graph.add("Erf", [scaled], f"{prefix}/Erf")
    shifted = graph.add("Add", [error, graph.scalar(1.0)], f"{prefix}/Add")
    product = graph.add("Mul", [source, shifted], f"{prefix}/Mul")
    return graph.add("Mul", [product, graph.scalar(0.5)], f"{prefix}/Mul_1")


def _norm(graph: GraphWriter, shape: EncoderShape, source: str, prefix: str) -> str:
    name = _parameter(prefix)
    gamma = graph.weight(f"{name}.weight", np.ones(shape.hidden, np.float32))
    beta = graph.weight(f"{name}.bias", np.zeros(shape.hidden, np.float32))
    inputs = [source, gamma, beta]
    operator = "LayerNormalization"
    return graph.add(operator, inputs, f"{prefix}/{operator}", axis=-1, epsilon=1e-12)


def _pooler(graph: GraphWriter, shape: EncoderShape, hidden: str) -> str:
    first = graph.weight("first_token", np.array(0, np.int64))
    token = graph.add("Gather", [hidden, first], "/pooler/Gather", axis=1)
    size = (shape.hidden, shape.hidden)
    weight = graph.random_weight("pooler.dense.weight", size, _WEIGHT_SPREAD)
    bias = graph.random_weight("pooler.dense.bias", size[1:], _WEIGHT_SPREAD)
    dense = graph.add("Gemm", [token, weight, bias], "/pooler/dense/Gemm", transB=1)
    return graph.add("Tanh", [dense], "/pooler/activation/Tanh", output="pooler_output")


def _parameter(prefix: str) -> str:
    return prefix.strip("/").replace("/", ".")
