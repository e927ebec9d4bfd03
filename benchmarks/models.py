"""The models that the benchmarks measure, made from a seed, and one input sample for each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from benchmarks.graph_writer import GraphWriter
from benchmarks.transformer import BERT_BASE, BERT_LARGE, encoder_inputs, write_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

__all__ = [
    "MODELS",
    "BenchmarkModel",
    "write_mlp",
    "write_resnet",
    "write_small_ops",
]

RESNET50_BLOCKS = (3, 4, 6, 3)
_RESIDUAL_SCALE = 0.3  # keeps the residual sums of a normalisation-free ResNet moderate
_LIGHT_RESIDUAL_SCALE = 0.1  # leaves most of the signal, and of its errors, to the skip connections
_MLP_WIDTH, _MLP_LAYERS, _MLP_ROWS = 4096, 35, 128  # 35 weights of 64 MiB: 2.19 GiB
_SMALL_WIDTH = 16


class _Write(Protocol):
    def __call__(self, path: Path, *, external: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class BenchmarkModel:
    """How to make one model and its inputs."""

    title: str
    """What tables call it."""

    write: _Write
    """Writes the model to a path, weights embedded or external."""

    sample: Callable[[int], dict[str, npt.NDArray[Any]]]
    """Makes one input sample from a seed: arrays by input name."""

    external: bool = False
    """Whether the weights have to be external, because they pass 2 GiB."""


def write_resnet(
    path: Path,
    *,
    external: bool,
    blocks: Sequence[int] = RESNET50_BLOCKS,
    width: int = 64,
    residual_scale: float = _RESIDUAL_SCALE,
) -> None:
    """Writes a bottleneck ResNet, BatchNormalization folded; 53 convolutions by default."""
    with GraphWriter(path, external=external) as graph:
        graph.input("input", np.float32, (1, 3, 224, 224))
        stem = _conv(graph, "input", "/conv1", (width, 3, 7, 7), stride=2)
        stem = graph.add("Relu", [stem], "/relu/Relu")
        window: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
        hidden = graph.add("MaxPool", [stem], "/maxpool/MaxPool", **window)
        channels = width
        for stage, count in enumerate(blocks):
            for block in range(count):
                prefix = f"/layer{stage + 1}/layer{stage + 1}.{block}"
                stride = 2 if stage > 0 and block == 0 else 1
                inner = width * 2**stage
                hidden = _bottleneck(
                    graph, hidden, prefix, (channels, inner), stride, residual_scale
                )
                channels = 4 * inner
        pooled = graph.add("GlobalAveragePool", [hidden], "/avgpool/GlobalAveragePool")
        flat = graph.add("Flatten", [pooled], "/Flatten", axis=1)
        weight = graph.random_weight("fc.weight", (1000, channels), channels**-0.5)
        bias = graph.random_weight("fc.bias", (1000,), 0.01)
        graph.add("Gemm", [flat, weight, bias], "/fc/Gemm", output="output", transB=1)
        graph.output("output", (1, 1000))


def write_mlp(
    path: Path,
    *,
    external: bool,
    width: int = _MLP_WIDTH,
    layers: int = _MLP_LAYERS,
    rows: int = _MLP_ROWS,
) -> None:
    """Writes a deep perceptron: 2.19 GiB by default, of which no weight passes 64 MiB."""
    with GraphWriter(path, external=external) as graph:
        hidden = graph.input("input", np.float32, (rows, width))
        for layer in range(layers):
            name = f"layers.{layer}"
            weight = graph.random_weight(f"{name}.weight", (width, width), (2.0 / width) ** 0.5)
            product = graph.add("MatMul", [hidden, weight], f"/{name}/MatMul")
            bias = graph.random_weight(f"{name}.bias", (width,), 0.01)
            total = graph.add("Add", [product, bias], f"/{name}/Add")
            hidden = graph.add("Relu", [total], f"/{name}/Relu")
        graph.output(hidden, (rows, width))


def write_small_ops(path: Path, *, external: bool, count: int = 5000) -> None:
    """Writes `count` nodes on tensors of a few numbers, with a skip connection every six."""
    with GraphWriter(path, external=external) as graph:
        hidden = skip = graph.input("input", np.float32, (1, _SMALL_WIDTH))
        for index in range(count):
            step = index % 6
            name = f"/blocks.{index // 6}/op.{step}"
            operator = ("Mul", "Add", "Tanh", "Mul", "Sigmoid", "Sub")[step]
            inputs = [hidden]
            if step in (0, 1, 3):
                inputs.append(graph.random_weight(f"w{index}", (_SMALL_WIDTH,), 1.0))
            if step == 5:
                inputs.append(skip)
            hidden = graph.add(operator, inputs, f"{name}/{operator}")
            if step == 5:
                skip = hidden
        graph.output(hidden, (1, _SMALL_WIDTH))


def _bottleneck(
    graph: GraphWriter,
    source: str,
    prefix: str,
    channels: tuple[int, int],
    stride: int,
    residual_scale: float,
) -> str:
    outer, inner = channels
    first = _conv(graph, source, f"{prefix}/conv1", (inner, outer, 1, 1))
    first = graph.add("Relu", [first], f"{prefix}/relu/Relu")
    second = _conv(graph, first, f"{prefix}/conv2", (inner, inner, 3, 3), stride=stride)
    second = graph.add("Relu", [second], f"{prefix}/relu_1/Relu")
    shape = (4 * inner, inner, 1, 1)
    third = _conv(graph, second, f"{prefix}/conv3", shape, scale=residual_scale)
    skip = source
    if outer != 4 * inner:
        shape = (4 * inner, outer, 1, 1)
        name = f"{prefix}/downsample/downsample.0"
        skip = _conv(graph, source, name, shape, stride=stride, scale=0.5**0.5)
    total = graph.add("Add", [third, skip], f"{prefix}/Add")
    return graph.add("Relu", [total], f"{prefix}/relu_2/Relu")


def _conv(
    graph: GraphWriter,
    source: str,
    prefix: str,
    shape: tuple[int, int, int, int],
    *,
    stride: int = 1,
    scale: float = 1.0,
) -> str:
    name = prefix.strip("/").replace("/", ".")
    fan_in = shape[1] * shape[2] * shape[3]
    weight = graph.random_weight(f"{name}.weight", shape, scale * (2.0 / fan_in) ** 0.5)
    bias = graph.random_weight(f"{name}.bias", shape[:1], 0.01)
    border = shape[2] // 2
    window: dict[str, Any] = {
        "kernel_shape": shape[2:],
        "strides": [stride] * 2,
        "pads": [border] * 4,
    }
    return graph.add("Conv", [source, weight, bias], f"{prefix}/Conv", **window)


def _floats(shape: tuple[int, ...], seed: int) -> dict[str, npt.NDArray[Any]]:
    return {"input": np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)}


MODELS = {
    "bert-base": BenchmarkModel(
        "BERT-base 1x128",
        partial(write_encoder, shape=BERT_BASE),
        partial(encoder_inputs, BERT_BASE),
    ),
    "bert-large": BenchmarkModel(
        "BERT-large 1x128",
        partial(write_encoder, shape=BERT_LARGE),
        partial(encoder_inputs, BERT_LARGE),
    ),
    "resnet50": BenchmarkModel(
        "ResNet-50-sized CNN", write_resnet, partial(_floats, (1, 3, 224, 224))
    ),
    "resnet50-light": BenchmarkModel(
        "ResNet-50-sized CNN, light residual branches",
        partial(write_resnet, residual_scale=_LIGHT_RESIDUAL_SCALE),
        partial(_floats, (1, 3, 224, 224)),
    ),
    "mlp": BenchmarkModel(
        "MLP of 2.19 GiB", write_mlp, partial(_floats, (_MLP_ROWS, _MLP_WIDTH)), external=True
    ),
    "small-ops": BenchmarkModel(
        "5,000 small nodes", write_small_ops, partial(_floats, (1, _SMALL_WIDTH))
    ),
}
"""Every model that can be made here, by the name used on the command line."""
