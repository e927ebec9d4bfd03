"""Pairs of QuantizeLinear and DequantizeLinear, and the graph that they stand in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx import TensorProto

from polygraphy_layerprec.model.graph import Graph, Node

if TYPE_CHECKING:
    import numpy.typing as npt
    from onnx import NodeProto

    from polygraphy_layerprec.model.weights import Weight

__all__ = [
    "RANKED_TYPES",
    "STORED_TYPES",
    "Chain",
    "Pair",
    "QuantizedGraph",
    "UnrankedNode",
    "decisions_of",
]

RANKED_TYPES: Final[dict[int, str]] = {
    TensorProto.INT8: "INT8",
    TensorProto.FLOAT8E4M3FN: "FP8 E4M3",
}
"""Element types of pairs that are ranked: those that TensorRT computes in."""

STORED_TYPES: Final[dict[int, str]] = {**RANKED_TYPES, TensorProto.INT32: "INT32"}
"""Element types of constants that are stored quantised and ranked; INT32 is that of biases."""

_LARGEST: Final[dict[int, float]] = {
    TensorProto.INT8: 127.0,
    TensorProto.FLOAT8E4M3FN: 448.0,
    TensorProto.INT32: 2.0**31 - 1,
}


@dataclass(frozen=True)
class Pair:
    """One quantisation: a QuantizeLinear with its DequantizeLinear, or the latter of a constant."""

    name: str
    """Unique name of the DequantizeLinear."""

    source: str
    """The tensor that is quantised, or the constant that is stored quantised."""

    output: str
    """The tensor that the DequantizeLinear makes."""

    quantized: str
    """The tensor between the two, by which pairs that share it are known."""

    nodes: tuple[NodeProto, ...]
    """The nodes, in order."""

    constants: Mapping[str, Weight]
    """Scale and zero point of the nodes, by tensor name."""

    element_type: int
    """Member of `TensorProto.DataType`: a key of `STORED_TYPES`."""

    float_type: int
    """Element type of the scale and the result."""

    is_weight: bool
    """Whether it quantises a constant."""

    is_stored: bool
    """Whether the model holds the constant in quantised form alone."""

    scale: npt.NDArray[Any]
    """What one step stands for; positive, of any float type; a scalar, one for each channel, or one
    for each block."""

    axis: int | None
    """Axis of the channels or blocks; None for a scale of the whole tensor."""

    block_size: int
    """Extent of a block along `axis`; 0 without blocks."""

    @property
    def largest_step(self) -> float:
        """Largest multiple of the scale: 127 for INT8, 448 for FP8 E4M3."""
        return _LARGEST[self.element_type]

    @property
    def is_half(self) -> bool:
        """Whether it stands among tensors of FP16, which the float graph has in FP32."""
        return self.float_type == TensorProto.FLOAT16

    @property
    def is_bias(self) -> bool:
        """Whether it is of INT32, as biases are stored."""
        return self.element_type == TensorProto.INT32

    @property
    def has_even_steps(self) -> bool:
        """Whether all steps are equal, as those of integers are."""
        return self.element_type != TensorProto.FLOAT8E4M3FN

    @property
    def multiplies(self) -> bool:
        """Whether the DequantizeLinear has another scale or zero point than the QuantizeLinear."""
        if len(self.nodes) == 1:
            return False
        before, after = (
            [self._constant(node, position) for position in (1, 2)] for node in self.nodes
        )
        return not all(map(np.array_equal, before, after))

    def _constant(self, node: NodeProto, position: int) -> npt.NDArray[np.float64]:
        """A scale or a zero point, which is 0 where it is left out."""
        name = node.input[position] if len(node.input) > position else ""
        values = np.asarray(self.constants[name].read() if name else 0.0, np.float64)
        return values.ravel() if values.any() else np.zeros(1)

    def limits(self, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Returns the largest magnitude that is not clipped, in a shape that broadcasts to `shape`.

        Args:
            shape: Shape of the tensor.
        """
        return self._spread(np.asarray(self.scale, np.float64), shape) * self.largest_step

    def dequantize(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Returns what the values of a stored constant stand for."""
        values = stored.astype(np.float32)
        if len(self.nodes[-1].input) > 2 and self.nodes[-1].input[2]:
            zeros = self.constants[self.nodes[-1].input[2]].read().astype(np.float32)
            values -= self._spread(zeros, stored.shape)
        return np.asarray(values * self._spread(self.scale.astype(np.float32), stored.shape))

    def _spread(self, values: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Numbers that a scale's elements have, in a shape that broadcasts."""
        if self.axis is None:
            return values.reshape(())
        if not self.block_size:
            extents = [1] * len(shape)
            extents[self.axis] = -1
            return values.reshape(extents)
        repeated = np.repeat(values, self.block_size, axis=self.axis)
        return np.asarray(np.take(repeated, np.arange(shape[self.axis]), axis=self.axis))


Chain = tuple[Pair, ...]
"""Pairs that follow one another on an edge, in the order in which values pass them."""


@dataclass(frozen=True, slots=True)
class UnrankedNode:
    """A node that quantises or dequantises and is part of reference and candidate alike."""

    name: str
    """Unique name."""

    op: str
    """ONNX operator."""

    outputs: tuple[str, ...]
    """ONNX names of its outputs."""

    reason: str
    """Why it is not ranked, in words."""


@dataclass(frozen=True)
class QuantizedGraph(Graph):
    """The float graph of a quantised model: what it computes with every ranked pair passed by.

    Layers are the operators that take something through a pair. Tensors are named as in the
    quantised model.
    """

    chains: Mapping[str, Mapping[str, Chain]]
    """For each node by its first output, and each of its inputs: the pairs that stand before it."""

    carried: frozenset[str]
    """Outputs of nodes that only move values, whose pairs count as those of the nodes behind."""

    units: tuple[tuple[str, ...], ...]
    """Nodes, by first output, that share a pair and so are one decision, in execution order."""

    by_output: Mapping[str, Pair]
    """Every pair that was found, ranked or of a constant without float values, by what it makes."""

    quantized: Graph
    """The quantised model as it is."""

    reference: Graph | None
    """The float model that it was made of, where that is known."""

    reference_path: str | None
    """Path of that model, where it is a file."""

    unknown_weights: tuple[str, ...]
    """Constants that are stored quantised and whose float values nobody gave, by name."""

    unranked: tuple[UnrankedNode, ...]
    """Nodes that quantise and are not ranked, in graph order."""

    def chains_of(self, node: Node) -> Mapping[str, Chain]:
        """Returns the pairs before a node, by the tensor that it reads in the float graph."""
        return self.chains.get(_first_output(node), {})

    def is_quantized(self, node: Node) -> bool:
        """Whether a node takes something through a pair, directly or through what moves values."""
        return _first_output(node) in self.chains or not self.carried.isdisjoint(node.sources)

    def carries(self, node: Node) -> bool:
        """Whether a node hands its pairs on to the nodes behind it."""
        return not self.carried.isdisjoint(node.outputs)

    def has_unknown_constant(self, node: Node) -> bool:
        """Whether a node reads a constant whose float values nobody gave."""
        pairs = (self.by_output[name] for name in node.inputs if name in self.by_output)
        return any(pair.source in self.unknown_weights for pair in pairs)

    @property
    def alike(self) -> tuple[UnrankedNode, ...]:
        """Of the nodes that are not ranked, those whose results something takes.

        They quantise in reference and candidate alike.
        """
        taken = self.quantized.consumers.keys() | set(self.quantized.outputs)
        return tuple(node for node in self.unranked if not taken.isdisjoint(node.outputs))

    @property
    def decided_nodes(self) -> tuple[Node, ...]:
        """The nodes that take something through a pair, those that hand it on among them."""
        return tuple(node for unit in self.decisions for node in unit)

    @cached_property
    def decisions(self) -> tuple[tuple[Node, ...], ...]:
        """The nodes of each unit, in execution order."""
        made = {name: node for node in self.nodes for name in node.outputs if name}
        present = (tuple(made[name] for name in unit if name in made) for unit in self.units)
        return tuple(unit for unit in present if unit)

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Every ranked pair, once."""
        chains = (chain for inputs in self.chains.values() for chain in inputs.values())
        return tuple({pair.name: pair for chain in chains for pair in chain}.values())


def decisions_of(graph: Graph) -> tuple[tuple[Node, ...], ...]:
    """Returns the nodes that are decided on together: each layer, or each unit where pairs stand.

    The first node of each introduces an error.
    """
    if not isinstance(graph, QuantizedGraph):
        return tuple((node,) for node in graph.layers)
    return tuple(
        tuple(sorted(unit, key=lambda node: (graph.carries(node), node.index)))
        for unit in graph.decisions
    )


def _first_output(node: Node) -> str:
    return next(filter(None, node.outputs), "")
