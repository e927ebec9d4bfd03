"""Finds the pairs of QuantizeLinear and DequantizeLinear in a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from onnx import TensorProto

from polygraphy_layerprec.model.operators import normal_domain
from polygraphy_layerprec.model.quantized.checking import checked_scale
from polygraphy_layerprec.model.quantized.records import (
    RANKED_TYPES,
    STORED_TYPES,
    Pair,
    UnrankedNode,
)
from polygraphy_layerprec.model.roles import Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnx import GraphProto, NodeProto

    from polygraphy_layerprec.model.graph import Graph, Node

__all__ = ["FoundPairs", "find_pairs"]

_DOMAINS: Final = frozenset({"", "com.microsoft"})
_FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})
_QUANTIZE: Final = "QuantizeLinear"
_DEQUANTIZE: Final = "DequantizeLinear"


@dataclass(frozen=True, slots=True)
class FoundPairs:
    """What was found."""

    pairs: Mapping[str, Pair]
    """Ranked pairs, by the tensor that they make."""

    unranked: tuple[UnrankedNode, ...]
    """Nodes that quantise and are not ranked, in graph order."""


def find_pairs(graph: Graph) -> FoundPairs:
    """Returns the pairs of a model, those that are ranked apart from those that are not.

    Raises:
        ModelError: If a ranked pair is damaged: a scale that is not positive or of the wrong shape,
            a zero point that its type cannot hold.
    """
    finder = _Finder(graph)
    pairs: dict[str, Pair] = {}
    unranked: list[UnrankedNode] = []
    for node in graph.nodes:
        if node.domain not in _DOMAINS:
            continue
        if node.op_type == _DEQUANTIZE:
            reason = finder.why_unranked(node)
            if reason:
                unranked.append(UnrankedNode(node.name, node.op_type, node.outputs, reason))
            else:
                pairs[node.outputs[0]] = finder.pair(node)
        elif node.op_type == _QUANTIZE:
            reason = finder.why_single(node)
            if reason:
                unranked.append(UnrankedNode(node.name, node.op_type, node.outputs, reason))
        elif node.op_type == "DynamicQuantizeLinear":
            reason = "its scale is computed while the model runs, anew for each input"
            unranked.append(UnrankedNode(node.name, node.op_type, node.outputs, reason))
    return FoundPairs(pairs, tuple(unranked))


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._captured = frozenset(_captured(graph.proto.graph))
        self._main = {name for node in graph.proto.graph.node for name in node.output}

    def why_unranked(self, node: Node) -> str:
        """Returns why a DequantizeLinear is no part of a ranked pair, empty if it is."""
        graph = self._graph
        taken = node.inputs[0]
        place = self._why_out_of_reach(node)
        if place:
            return place
        before = graph.producers.get(taken)
        is_stored = taken in graph.weights
        if not is_stored and (before is None or before.op_type != _QUANTIZE):
            maker = "an input of the model" if before is None else before.op_type
            return f"its integers come from {maker}, not from a QuantizeLinear"
        if any(name and name not in graph.weights for name in _parameters(node, before)):
            return "its scale is computed while the model runs"
        kind = graph.element_type(taken)
        if kind not in (STORED_TYPES if is_stored else RANKED_TYPES):
            known = " and ".join(RANKED_TYPES.values())
            return f"it is {_type_name(kind)}; {known} are ranked, which TensorRT computes in"
        floats = graph.element_type(node.outputs[0])
        if floats not in _FLOATS:
            return f"it gives {_type_name(floats)}, not FLOAT or FLOAT16"
        return ""

    def _why_out_of_reach(self, node: Node) -> str:
        output = node.outputs[0]
        if output not in self._main or node.guards or node.path:
            return "it stands in a function or a branch"
        if output in self._captured:
            return "a body of a loop or a branch reads what it makes"
        if not (self._graph.consumers.get(output) or output in self._graph.outputs):
            return "nothing reads what it makes"
        return ""

    def why_single(self, node: Node) -> str:
        """Returns what is strange about a QuantizeLinear that is no part of a pair, else empty."""
        quantized = node.outputs[0]
        readers = self._graph.consumers.get(quantized, ())
        others = [reader for reader in readers if reader.op_type != _DEQUANTIZE]
        if others:
            return f"its integers go to {others[0].op_type}, not to a DequantizeLinear"
        if quantized in self._graph.outputs:
            return "its integers are an output of the model"
        return "" if readers else "nothing reads what it makes"

    def pair(self, node: Node) -> Pair:
        """Returns the pair that a DequantizeLinear ends."""
        graph = self._graph
        taken = node.inputs[0]
        before = graph.producers.get(taken)
        is_stored = taken in graph.weights
        source = taken if before is None else before.inputs[0]
        nodes = (node.proto,) if before is None else (before.proto, node.proto)
        constants = {name: graph.weights[name] for name in _parameters(node, before) if name}
        scale, axis, block_size = checked_scale(graph, node, before)
        return Pair(
            name=node.name,
            source=source,
            output=node.outputs[0],
            quantized=taken,
            nodes=nodes,
            constants=constants,
            element_type=graph.element_type(taken),
            float_type=graph.element_type(node.outputs[0]),
            is_weight=is_stored or _is_constant(graph, source),
            is_stored=is_stored,
            scale=scale,
            axis=axis,
            block_size=block_size,
        )


def _parameters(node: Node, before: Node | None) -> tuple[str, ...]:
    """Names of scales and zero points."""
    return (*node.inputs[1:], *(before.inputs[1:] if before is not None else ()))


def _is_constant(graph: Graph, name: str) -> bool:
    producer = graph.producers.get(name)
    return name in graph.weights or (producer is not None and producer.role is Role.FOLDED)


def _type_name(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)) if kind in TensorProto.DataType.values() else "?"


def _captured(graph: GraphProto) -> Iterator[str]:
    """Names that bodies within a graph read."""
    for node in graph.node:
        for attribute in node.attribute:
            bodies = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
            for body in bodies:
                yield from _read(body.node)
                yield from (value.name for value in body.output)
                yield from _captured(body)


def _read(nodes: Iterable[NodeProto]) -> Iterator[str]:
    for node in nodes:
        yield from node.input


def reads_shape(node: NodeProto) -> bool:
    """Whether a node takes nothing but the shape of a tensor, which pairs leave as it is."""
    return not normal_domain(node.domain) and node.op_type in {"Shape", "Size"}


def is_pair_node(node: NodeProto) -> bool:
    """Whether a node quantises or dequantises."""
    return normal_domain(node.domain) in _DOMAINS and node.op_type in {_QUANTIZE, _DEQUANTIZE}
