"""What a network that goes to the builder says about the layers of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from polygraphy_layerprec.backend.engines.obtained.layers import split_metadata
from polygraphy_layerprec.backend.engines.obtained.precisions import NetworkTypes
from polygraphy_layerprec.emit.name_bridge import as_layer_constraints, match_layers
from polygraphy_layerprec.emit.network_view import NetworkView, find_tensorrt, is_strongly_typed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from polygraphy_layerprec.backend.engines.obtained.precisions import AskedLayer, Width
    from polygraphy_layerprec.emit.name_bridge import LayerMatch
    from polygraphy_layerprec.emit.network_view import LayerView

__all__ = ["read_network_types"]

_WIDTHS: Final[dict[str, Width]] = {"FLOAT": "fp32", "HALF": "low", "BF16": "low"}
_NO_COMPUTATION: Final = frozenset({"CAST", "CONSTANT"})


def read_network_types(network: Any, asked: Sequence[AskedLayer]) -> dict[int, NetworkTypes]:
    """Returns what a network says about layers, by index in `asked`, as far as it has them.

    Args:
        network: A `tensorrt.INetworkDefinition`, changed as it is built.
        asked: Layers of the model.
    """
    trt = find_tensorrt(network)
    view = NetworkView(network, trt)
    constraints = as_layer_constraints(layer.node for layer in asked)
    decides = is_strongly_typed(network, trt)
    found = {}
    for index, match in enumerate(match_layers(view, constraints)):
        layers = _own_layers(match)
        found[index] = NetworkTypes(
            nodes=frozenset(node for layer in layers for node in split_metadata(layer.metadata)),
            widths=frozenset(_widths_of(layers)) if decides else frozenset(),
        )
    return found


def _own_layers(match: LayerMatch) -> list[LayerView]:
    """Returns the layers that a node was parsed to, and all that matched where none has its name.

    A script may have put other tensors in place of a node's inputs, so that the layers before it
    were found as well.
    """
    name = match.constraint.name
    named = [
        layer
        for layer in match.layers
        if any(
            node == name or node.startswith(f"{name} | ") for node in split_metadata(layer.metadata)
        )
    ]
    return named or list(match.layers)


def _widths_of(layers: Iterable[LayerView]) -> Iterator[Width]:
    """Yields the widths of the floats that a layer's own computations read and give."""
    for layer in layers:
        if layer.kind in _NO_COMPUTATION or layer.carries_shape:
            continue
        for tensor in (*layer.inputs, *layer.outputs):
            width = None if tensor is None else _WIDTHS.get(tensor.tensor.dtype.name)
            if width is not None:
                yield width
