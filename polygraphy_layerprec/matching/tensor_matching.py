"""Which layer a measured tensor belongs to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from polygraphy_layerprec.records import Ranking

__all__ = ["match_tensors"]

# TensorRT calls a tensor that is no ONNX value `<layer>_output`, and further layers of one node
# `<node>_<number>`.
_ENGINE_TENSOR: Final = re.compile(r"(?P<layer>.+?)_output(?:_\d+)?")
_NUMBERED: Final = re.compile(r"(?P<node>.+)_\d+")


def match_tensors(
    ranking: Ranking,
    names: Iterable[str],
    *,
    tensor_layers: Mapping[str, str] | None = None,
    model_tensors: Collection[str] = (),
) -> dict[str, tuple[str, ...]]:
    """Returns the tensors among `names` that each layer makes, by the layer's unique name.

    ONNX values keep their name in an engine, and it is unique; only a layer with none of these is
    looked for by names of layers.

    Args:
        ranking: The layers.
        names: Names of tensors.
        tensor_layers: Unique name of a layer for tensors that do not bear the name of an ONNX
            value, as a network tells it. Without, names of the form `<node>_output` are tried.
        model_tensors: Names of ONNX values, which no layer's name is looked for in.
    """
    names = dict.fromkeys(names)
    matched = {
        layer.name: found
        for layer in ranking.layers
        if (found := tuple(name for name in layer.outputs if name and name in names))
    }
    values = {*model_tensors, *(name for found in matched.values() for name in found)}
    further: dict[str, list[str]] = {}
    layer_of = _LayerNames(ranking)
    for name in names:
        layer = (tensor_layers or {}).get(name) or layer_of(name)
        if name not in values and layer in layer_of.unique and layer not in matched:
            further.setdefault(layer, []).append(name)
    return {**matched, **{layer: tuple(found) for layer, found in further.items()}}


class _LayerNames:
    """Finds layers by the names that TensorRT gives to tensors."""

    def __init__(self, ranking: Ranking) -> None:
        self.unique = {layer.name for layer in ranking.layers}
        counts = Counter(layer.node_name for layer in ranking.layers)
        self._by_node = {
            layer.node_name: layer.name
            for layer in ranking.layers
            if layer.node_name and counts[layer.node_name] == 1
        }

    def __call__(self, tensor: str) -> str:
        """Returns the layer's unique name; empty if there is none, or more than one."""
        named = _ENGINE_TENSOR.fullmatch(tensor)
        if named is None:
            return ""
        if named["layer"] in self._by_node:
            return self._by_node[named["layer"]]
        numbered = _NUMBERED.fullmatch(named["layer"])
        return "" if numbered is None else self._by_node.get(numbered["node"], "")
