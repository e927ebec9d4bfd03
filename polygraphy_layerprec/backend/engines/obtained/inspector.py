"""What an engine inspector tells about the layers of an engine, in either layout of its JSON.

Up to TensorRT 10 a tensor has one entry, `Format/Datatype`, in words such as `Row major linear FP16
format`; later ones have a `Datatype` of its own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from polygraphy_layerprec.backend.engines.obtained.layers import (
    EngineLayer,
    EngineTensor,
    float_type,
    split_metadata,
)
from polygraphy_layerprec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["parse_layer_information"]


def parse_layer_information(text: str) -> tuple[EngineLayer, ...]:
    """Returns the layers in the JSON of an engine inspector, none where it holds names alone.

    Raises:
        UserError: If it is no such JSON.
    """
    content = json.loads(text)
    layers = _entry(content, "layers")
    if not isinstance(layers, list):
        raise UserError("must be an object with a list of layers")
    return tuple(
        EngineLayer(
            name=str(_entry(layer, "name") or ""),
            kind=str(_entry(layer, "layertype") or ""),
            nodes=split_metadata(str(_entry(layer, "metadata") or "")),
            inputs=tuple(_float_tensors(_entry(layer, "inputs"))),
            outputs=tuple(_float_tensors(_entry(layer, "outputs"))),
            constants=tuple(_float_tensors(_entry(layer, "constants"))),
        )
        for layer in layers
        if isinstance(layer, dict)
    )


def _entry(container: Any, key: str) -> Any:
    """An entry whatever the case of its name, None where there is none."""
    entries: Mapping[str, Any] = container if isinstance(container, dict) else {}
    return next((value for name, value in entries.items() if name.lower() == key), None)


def _float_tensors(tensors: Any) -> Iterable[EngineTensor]:
    for tensor in tensors if isinstance(tensors, list) else ():
        if not isinstance(tensor, dict):
            continue
        types = [str(v) for k, v in tensor.items() if "datatype" in k.lower().replace(" ", "")]
        found = float_type(" ".join(types))
        if found:
            yield EngineTensor(str(_entry(tensor, "name")), found, _shape(tensor))


def _shape(tensor: Any) -> tuple[int, ...] | None:
    extents = _entry(tensor, "dimensions")
    if not isinstance(extents, list) or not all(isinstance(extent, int) for extent in extents):
        return None
    return tuple(extents)
