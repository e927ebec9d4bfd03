"""The records of a plan: a width for every FP32 tensor, and the casts between."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.plan.kept_layers import KeptLayers
    from polygraphy_layerprec.precision import Precision

__all__ = ["LeftNode", "NodePlan", "Plan", "Target", "Verdict", "Width"]


class Target(enum.Enum):
    """Whom a plan is for; what can be lowered depends on it."""

    STRONG = "network-strong"
    """A strongly typed TensorRT network: TensorRT 10 on request, 11, RTX, through the script."""

    WEAK = "network-weak"
    """A weakly typed TensorRT network, 8.6 to 10, in the worst case: the builder lowers whatever
    no constraint keeps in FP32."""

    ONNX = "onnx"
    """A mixed-precision model, which a parser and a runtime must take."""


class Width(enum.Enum):
    """The precision of an FP32 tensor, or the one in which it is read."""

    FP32 = enum.auto()
    LOW = enum.auto()
    EITHER = enum.auto()
    """Read as it is: the result does not depend on it."""


class Verdict(enum.Enum):
    """What becomes of a node."""

    UNTOUCHED = enum.auto()
    """It holds no FP32 tensor, or does not care: it reads either precision."""

    KEPT = enum.auto()
    """It stays in FP32 because it was requested."""

    LEFT = enum.auto()
    """It stays in FP32 by a rule."""

    FOLLOWS = enum.auto()
    """It moves, selects or compares FP32 values and rounds nothing, or depends on constants
    alone."""

    LOWERED = enum.auto()
    """It computes in the low precision, or moves values that are in it."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What becomes of one node."""

    verdict: Verdict
    """In a word."""

    reason: str
    """Why it is left in FP32, empty otherwise."""

    inputs: tuple[Width | None, ...]
    """For each input the precision in which it is read, None where it is no FP32 tensor."""

    outputs: tuple[Width | None, ...]
    """For each output the precision in which it is made, None where it is no FP32 tensor."""

    around: Width | None = None
    """The precision in which its bodies, or for an `If` its branches, hand tensors in."""

    deviation: str = ""
    """How a lowered node of a saved model differs from that of a network, empty if it does not."""


@dataclass(frozen=True, slots=True)
class LeftNode:
    """A node that a rule treats otherwise than the others, though nothing requested that."""

    name: str
    """Unique name of the node."""

    op: str
    """ONNX operator, for example `Range`."""

    outputs: tuple[str, ...]
    """ONNX names of the output tensors."""

    reason: str
    """Why it is not lowered, or how otherwise, in words."""


@dataclass(frozen=True)
class Plan:
    """A width for every FP32 tensor of a graph; both ends of an edge agree, or a cast is between.

    Raises:
        AssertionError: If an edge has two widths and no cast.
    """

    graph: Graph
    """The graph."""

    target: Target
    """Whom it is for."""

    precision: Precision
    """The low precision."""

    kept: KeptLayers
    """The layers that were requested to stay in FP32."""

    nodes: tuple[NodePlan, ...]
    """What becomes of each node, in execution order."""

    natives: Mapping[str, Width]
    """The width of each FP32 tensor where it is made; constants are `EITHER`."""

    casts: frozenset[tuple[str, Width]]
    """Tensors that are cast, and to which width."""

    io_width: Width = Width.FP32
    """Width of the FP32 inputs and outputs of the model."""

    removed_pair_count: int | None = None
    """Pairs of a quantised model that nothing takes then; None for other models."""

    def __post_init__(self) -> None:
        for node, plan in zip(self.graph.nodes, self.nodes, strict=True):
            for name, width in reads_of(node, plan):
                assert self._reaches(name, width), f"{node.name!r} reads {name!r} as {width}"

    def of(self, node: Node) -> NodePlan:
        """Returns what becomes of one node."""
        return self._by_index[node.index]

    def is_low(self, name: str) -> bool:
        """Whether an FP32 tensor is in the low precision where it is made."""
        return self.natives.get(name) is Width.LOW

    def is_lowered(self, node: Node) -> bool:
        """Whether a node computes in the low precision, or moves values that are in it."""
        return self._by_index[node.index].verdict is Verdict.LOWERED

    @cached_property
    def _by_index(self) -> Mapping[int, NodePlan]:
        # The nodes of a part of a model keep their indices.
        return {n.index: plan for n, plan in zip(self.graph.nodes, self.nodes, strict=True)}

    @cached_property
    def left(self) -> tuple[LeftNode, ...]:
        """The nodes that a rule leaves as they are, in execution order."""
        return tuple(
            LeftNode(node.name, node.op_type, node.outputs, plan.reason)
            for node, plan in zip(self.graph.nodes, self.nodes, strict=True)
            if plan.reason
        )

    @cached_property
    def deviating(self) -> tuple[LeftNode, ...]:
        """The nodes that are lowered otherwise than in a network, in execution order."""
        return tuple(
            LeftNode(node.name, node.op_type, node.outputs, plan.deviation)
            for node, plan in zip(self.graph.nodes, self.nodes, strict=True)
            if plan.deviation and plan.verdict is Verdict.LOWERED
        )

    @property
    def fp32_node_count(self) -> int:
        """How many nodes stay in FP32, with those that only move values, constants aside."""
        return sum(
            any(self.natives.get(name) is Width.FP32 for name in node.outputs)
            for node, plan in zip(self.graph.nodes, self.nodes, strict=True)
            if plan.verdict is not Verdict.UNTOUCHED and not node.is_constant
        )

    def _reaches(self, name: str, width: Width | None) -> bool:
        native = self.natives.get(name, width)
        agree = width in (None, Width.EITHER, native) or native is Width.EITHER
        return agree or (name, width) in self.casts


def reads_of(node: Node, plan: NodePlan) -> list[tuple[str, Width | None]]:
    """Returns every tensor that a node reads, with the width in which it does."""
    given = [name for branch in node.branches for name in branch]
    reads = list(zip(node.inputs, plan.inputs, strict=True))
    return reads + [(name, plan.around) for name in (*node.captures, *given)]
