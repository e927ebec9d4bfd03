"""The listing of kernels that the builder logs when it has built an engine; needs no GPU.

With detailed profiling verbosity, TensorRT logs one verbose message: a line for each layer, in the
form that an engine inspector gives as `ONELINE`:

    Layers:
    Name: fc, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [2,8], ..., Datatype: Half, ... }],
    Constants: [...], Outputs: [...], TacticName: ..., StreamId: 0, Metadata: [ONNX Layer: fc]

Nothing in it is quoted, and names may hold anything, so it is read by its fixed parts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.backend.engines.obtained.layers import (
    EngineLayer,
    EngineTensor,
    float_type,
    split_metadata,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["is_listing", "parse_listing"]

_START: Final = "Layers:\n"
_END: Final = re.compile(r"\n\n(?:I/O Tensors|Bindings):")
_BETWEEN_LAYERS: Final = re.compile(r"\n(?=Name: .*?, LayerType: \w+, Inputs: \[)")
_LAYER: Final = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), "
    r"Inputs: \[(?P<inputs>.*?)\], "
    r"(?:Constants: \[(?P<constants>.*?)\], )?"
    r"Outputs: \[(?P<outputs>|.*?\})\](?P<rest>, .*)?\Z",
    re.DOTALL,
)
_METADATA: Final = ", Metadata: "
_TENSOR: Final = re.compile(
    r"\s*\{? ?Name: (?P<name>.*), Dimensions: \[(?P<shape>[-\d,]*)\](?P<rest>.*)", re.DOTALL
)
_DATATYPE: Final = re.compile(r"(?:, |/)Datatype: (?P<type>[^,}]*)")
_LOCATION: Final = re.compile(r", Location: \w+\Z")


def is_listing(message: str) -> bool:
    """Returns whether a message of TensorRT's log is a listing."""
    return message.startswith(_START)


def parse_listing(message: str) -> tuple[EngineLayer, ...]:
    """Returns the layers of a listing, none where it holds names alone."""
    body = _END.split(message.removeprefix(_START), maxsplit=1)[0]
    matches = [_LAYER.match(record) for record in _BETWEEN_LAYERS.split(body)]
    return tuple(
        EngineLayer(
            name=match["name"],
            kind=match["kind"],
            nodes=split_metadata((match["rest"] or "").partition(_METADATA)[2]),
            inputs=tuple(_float_tensors(match["inputs"])),
            outputs=tuple(_float_tensors(match["outputs"])),
            constants=tuple(_float_tensors(match["constants"] or "")),
        )
        for match in matches
        if match is not None
    )


def _float_tensors(text: str) -> Iterator[EngineTensor]:
    for part in text.split("}, {"):
        tensor = _TENSOR.match(part)
        datatype = tensor and _DATATYPE.search(tensor["rest"])
        found = float_type(datatype["type"]) if datatype else None
        if tensor and found:
            shape = tuple(int(extent) for extent in tensor["shape"].split(",") if extent)
            yield EngineTensor(_LOCATION.sub("", tensor["name"]), found, shape)
