"""The layers of a built engine, as its inspector's JSON or the builder's log describe them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EngineLayer", "EngineTensor", "float_type", "low_fraction", "split_metadata"]

_FLOAT_TYPES: Final = {
    "fp32": "FP32",
    "float": "FP32",
    "float32": "FP32",
    "fp16": "FP16",
    "half": "FP16",
    "float16": "FP16",
    "bf16": "BF16",
    "bfloat16": "BF16",
    "fp8": "FP8",
    "float8": "FP8",
    "fp4": "FP4",
    "float4": "FP4",
}

# TensorRT 10 puts a record separator between nodes, TensorRT-RTX 1.7 a unit separator.
_BETWEEN_NODES: Final = re.compile(r"\][\x1e\x1f]?(?=\[ONNX Layer: )")


@dataclass(frozen=True, slots=True)
class EngineTensor:
    """One tensor of floats that an engine layer reads or gives."""

    name: str
    """Its name in the engine; the name of an ONNX tensor where TensorRT kept it."""

    type: str
    """`FP32`, `FP16`, `BF16`, `FP8` or `FP4`."""

    shape: tuple[int, ...] | None = None
    """Extent of each axis, -1 where it is dynamic; None if it is not told."""

    @property
    def is_low(self) -> bool:
        """Whether it is narrower than FP32."""
        return self.type != "FP32"

    @property
    def is_scalar(self) -> bool:
        """Whether it holds a single number, such as the factors of a matrix product."""
        return self.shape is not None and math.prod(self.shape) == 1


@dataclass(frozen=True, slots=True)
class EngineLayer:
    """One layer of an engine, which is one kernel; often several ONNX nodes fused."""

    name: str
    """Its name in the engine."""

    kind: str
    """What TensorRT calls its type: `gemm`, `kgen`, `CaskConvolution`; empty if it is not told."""

    nodes: tuple[str, ...]
    """The ONNX nodes it was made from, as far as it tells: `name`, or `name | where it is`."""

    inputs: tuple[EngineTensor, ...]
    """The float tensors it reads, weights excepted; others are left out."""

    outputs: tuple[EngineTensor, ...]
    """The float tensors it gives."""

    constants: tuple[EngineTensor, ...] = ()
    """Its float weights, as far as they are told."""


def float_type(text: str) -> str | None:
    """Returns the type of floats that a description names, None where it names none.

    Args:
        text: `Half`, or `Row major linear FP16 format` from TensorRT up to version 10.
    """
    words = re.findall(r"[a-z0-9]+", text.lower())
    return next((_FLOAT_TYPES[word] for word in words if word in _FLOAT_TYPES), None)


def split_metadata(text: str) -> tuple[str, ...]:
    """Returns the ONNX nodes in an engine layer's metadata: `name`, or `name | where it is`."""
    text = text.strip()
    if not text.startswith("[ONNX Layer: "):
        return ()
    return tuple(
        entry.removeprefix("[ONNX Layer: ")
        for entry in _BETWEEN_NODES.split(text.removesuffix("]"))
    )


def low_fraction(layers: Iterable[EngineLayer]) -> float | None:
    """Returns the share of float tensors that are narrower than FP32; None if there is no float."""
    tensors = {t.name: t.is_low for layer in layers for t in (*layer.inputs, *layer.outputs)}
    return sum(tensors.values()) / len(tensors) if tensors else None
