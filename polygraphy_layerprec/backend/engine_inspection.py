"""What a built engine tells about its layers, in either layout of TensorRT's JSON.

Up to TensorRT 10 a tensor has one entry, `Format/Datatype`, in words such as `Row major linear FP16
format`; later ones have a `Datatype` of its own.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from polygraphy_layerprec.records import ObtainedPrecisions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from polygraphy_layerprec.records import Constraint

__all__ = ["EngineLayer", "compare_precisions", "parse_layer_information"]

_FLOAT_WORDS: Final = {
    "fp32": 32,
    "float": 32,
    "float32": 32,
    "fp16": 16,
    "half": 16,
    "float16": 16,
    "bf16": 16,
    "bfloat16": 16,
    "fp8": 8,
    "float8": 8,
    "fp4": 4,
    "float4": 4,
}
_NODE: Final = re.compile(r"\[ONNX Layer: (.*?)(?: \| .*?)?\](?=\x1e|\[ONNX Layer: |$)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class EngineLayer:
    """One layer of an engine; often several ONNX nodes fused."""

    nodes: tuple[str, ...]
    """Names of the ONNX nodes it was made from, as far as it tells."""

    input_bits: tuple[tuple[str, int], ...]
    """Name and width of each float tensor it reads; others are left out."""

    output_bits: tuple[tuple[str, int], ...]
    """The same of those it gives."""


def parse_layer_information(text: str) -> tuple[EngineLayer, ...]:
    """Returns the layers in the JSON of an engine inspector, none where it holds names alone.

    Raises:
        ValueError: If it is no such JSON.
    """
    content = json.loads(text)
    layers = _entry(content, "layers")
    if not isinstance(layers, list):
        raise ValueError("must be an object with a list of layers")  # noqa: TRY004 - a wrong text
    return tuple(
        EngineLayer(
            nodes=tuple(_NODE.findall(str(_entry(layer, "metadata") or ""))),
            input_bits=tuple(_float_tensors(_entry(layer, "inputs"))),
            output_bits=tuple(_float_tensors(_entry(layer, "outputs"))),
        )
        for layer in layers
        if isinstance(layer, dict)
    )


def compare_precisions(
    layers: Sequence[EngineLayer], asked: Sequence[Constraint]
) -> ObtainedPrecisions:
    """Returns what became of the layers that were to stay in FP32.

    A tensor under its ONNX name decides. Without one, an engine layer whose float tensors are all
    FP32 counts as such; any other may compute in FP32 and only read or give narrower numbers, so
    that it counts as not seen.
    """
    bits = dict(pair for layer in layers for pair in layer.output_bits)
    by_node: dict[str, list[EngineLayer]] = {}
    for layer in layers:
        for name in layer.nodes:
            by_node.setdefault(name, []).append(layer)
    fp32_count, lowered = 0, []
    for constraint in asked:
        widths = [bits[name] for name in constraint.outputs if name in bits]
        if widths and min(widths) < 32:
            first = next((name for name in constraint.outputs if name), "")
            lowered.append(constraint.name or first)
        elif widths or _all_fp32(by_node.get(constraint.name, ()) if constraint.name else ()):
            fp32_count += 1
    return ObtainedPrecisions(
        asked_count=len(asked),
        fp32_count=fp32_count,
        lowered=tuple(lowered),
        unseen_count=len(asked) - fp32_count - len(lowered),
        low_tensor_fraction=_low_fraction(layers),
    )


def _entry(container: Any, key: str) -> Any:
    """An entry whatever the case of its name, None where there is none."""
    entries: Mapping[str, Any] = container if isinstance(container, dict) else {}
    return next((value for name, value in entries.items() if name.lower() == key), None)


def _float_tensors(tensors: Any) -> Iterable[tuple[str, int]]:
    for tensor in tensors if isinstance(tensors, list) else ():
        if not isinstance(tensor, dict):
            continue
        types = [str(v) for k, v in tensor.items() if "datatype" in k.lower().replace(" ", "")]
        words = re.findall(r"[a-z0-9]+", " ".join(types).lower())
        widths = [_FLOAT_WORDS[word] for word in words if word in _FLOAT_WORDS]
        if widths:
            yield str(_entry(tensor, "name")), widths[0]


def _all_fp32(layers: Sequence[EngineLayer]) -> bool:
    widths = [bits for layer in layers for _, bits in (*layer.input_bits, *layer.output_bits)]
    return bool(widths) and min(widths) == 32


def _low_fraction(layers: Iterable[EngineLayer]) -> float | None:
    bits = dict(pair for layer in layers for pair in (*layer.input_bits, *layer.output_bits))
    return sum(width < 32 for width in bits.values()) / len(bits) if bits else None
