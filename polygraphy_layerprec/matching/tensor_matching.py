"""Which layer a measured tensor belongs to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.errors import UserError

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Ranking

__all__ = ["check_tensors_of_model", "match_tensors", "name_some", "nothing_in_common"]

# TensorRT calls a tensor that is no ONNX value `<layer>_output`, and further layers of one node
# `<node>_<number>`.
_ENGINE_TENSOR: Final = re.compile(r"(?P<layer>.+?)_output(?:_\d+)?", re.DOTALL)
_NUMBERED: Final = re.compile(r"(?P<node>.+)_\d+", re.DOTALL)
_NAMES_SHOWN: Final = 3


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
    layer_of = _LayerNames((layer.name, layer.node_name) for layer in ranking.layers)
    for name in names:
        layer = (tensor_layers or {}).get(name) or layer_of(name)
        if name not in values and layer in layer_of.unique and layer not in matched:
            further.setdefault(layer, []).append(name)
    return {**matched, **{layer: tuple(found) for layer, found in further.items()}}


def check_tensors_of_model(graph: Graph, names: Sequence[str]) -> None:
    """Checks that at least one tensor may be of the model, as is known before it is ranked.

    Args:
        graph: The model.
        names: Names of tensors.

    Raises:
        UserError: If none bears the name of one of its values, or one made of a node's.
    """
    values = graph.producers.keys() | set(graph.outputs)
    layer_of = _LayerNames((node.name, node.proto.name) for node in graph.nodes)
    if not any(name in values or layer_of(name) for name in names):
        raise UserError(nothing_in_common(names, list(graph.producers), model_name=graph.name))


def nothing_in_common(names: Sequence[str], wanted: Sequence[str], *, model_name: str) -> str:
    """Returns the text of the error that tensors called `names` are not of the model.

    Args:
        names: Names of the tensors that are there.
        wanted: Names of tensors that the model has.
        model_name: Name of the model; may be empty.
    """
    return (
        f"None of the {len(names)} tensors belongs to a layer or is an output of "
        f"{model_name or 'the model'!r}, so they come from another model.\n"
        f"Note: Their names are like {name_some(names)}; the model's are like "
        f"{name_some(wanted)}.\n"
        f"Give results of this model, or the model that they are of."
    )


def name_some(names: Sequence[str]) -> str:
    """Returns the first of the names, quoted and in ASCII, and how many more there are."""
    shown = ", ".join(ascii(name) for name in names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


class _LayerNames:
    """Finds layers by the names that TensorRT gives to tensors."""

    def __init__(self, layers: Iterable[tuple[str, str]]) -> None:
        """Takes the unique name of each layer, and that of its node."""
        layers = list(layers)
        self.unique = {name for name, _ in layers}
        counts = Counter(node_name for _, node_name in layers)
        self._by_node = {
            node_name: name for name, node_name in layers if node_name and counts[node_name] == 1
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
