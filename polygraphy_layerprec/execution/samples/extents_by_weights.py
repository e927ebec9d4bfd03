"""Extents that an input must have because of the weights it meets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.model.operators import RECURRENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from polygraphy_layerprec.model import Graph, Node

__all__ = ["extents_by_weights", "rank_by_weights"]

_KEEPS_SHAPE: Final = frozenset(
    "Cast Clip DequantizeLinear DynamicQuantizeLinear Erf Exp Identity LeakyRelu Log Neg Not "
    "QuantizeLinear Relu Sigmoid Sqrt Tanh".split()
)
_BROADCASTS: Final = frozenset("Add Div Mul Sub".split())
_CONVOLUTIONS: Final = frozenset("Conv ConvInteger QLinearConv".split())
_PRODUCTS: Final = frozenset("MatMul MatMulInteger".split())
_RECURRENT: Final = RECURRENT | {"DynamicQuantizeLSTM"}
_MOST_NODES: Final = 64


def extents_by_weights(graph: Graph, name: str, rank: int) -> dict[int, int]:
    """Returns the extents of some axes of the input `name`, by axis: channels, features.

    Args:
        graph: The model.
        name: An input.
        rank: How many axes it has.
    """
    found: dict[int, int] = {}
    for node, axes, weight in _meetings(graph, name, rank):
        for place, extent in _wanted(node, weight, len(axes)):
            if 0 <= place < len(axes) and axes[place] is not None:
                found.setdefault(axes[place], extent)
    return found


def rank_by_weights(graph: Graph, name: str) -> int | None:
    """Returns how many axes the input `name` must have, None where no weight says it."""
    for node, _, weight in _meetings(graph, name, 0):
        if node.op_type in _CONVOLUTIONS:
            return len(weight)
        if node.op_type in _RECURRENT:
            return 3
        if node.op_type in {"Gather", "Gemm", *_PRODUCTS}:
            return 2
    return None


def _meetings(
    graph: Graph, name: str, rank: int
) -> Iterator[tuple[Node, tuple[int, ...], tuple[int, ...]]]:
    """Each node where the input meets a weight: the input's axes in order, and the weight's shape.

    Only what keeps the axes, or permutes them, is passed through.
    """
    pending = [(name, tuple(range(rank)))]
    for tensor, axes in pending:
        for node in graph.consumers.get(tensor, ()):
            if len(pending) > _MOST_NODES:
                return
            weight = _other_weight(graph, node, tensor)
            if weight is not None:
                yield node, axes, weight
            if node.op_type in _KEEPS_SHAPE or (node.op_type in _BROADCASTS and weight is not None):
                pending.append((node.outputs[0], axes))
            elif node.op_type == "Transpose":
                order = node.attributes.get("perm", range(len(axes))[::-1])
                if len(order) == len(axes):
                    pending.append((node.outputs[0], tuple(axes[place] for place in order)))


def _other_weight(graph: Graph, node: Node, tensor: str) -> tuple[int, ...] | None:
    """The shape of the weight that stands beside `tensor` among the inputs of `node`."""
    place = 3 if node.op_type == "QLinearConv" else 1
    if node.op_type == "Gather" or (node.op_type in _BROADCASTS and node.inputs[0] != tensor):
        place = 0
    if len(node.inputs) <= place or node.inputs[place] == tensor:
        return None
    weight = graph.weights.get(_behind_scaling(graph, node.inputs[place]))
    return None if weight is None else weight.shape


def _behind_scaling(graph: Graph, name: str) -> str:
    while name not in graph.weights and name in graph.producers:
        producer = graph.producers[name]
        if producer.op_type not in {"Cast", "DequantizeLinear", "Identity"}:
            break
        name = producer.inputs[0]
    return name


def _wanted(node: Node, weight: Sequence[int], rank: int) -> Iterator[tuple[int, int]]:
    """Pairs of an axis and its extent, of what the node takes beside the weight."""
    if node.op_type in _CONVOLUTIONS and len(weight) >= 3:
        yield 1, weight[1] * int(node.attributes.get("group", 1))
    elif node.op_type in _PRODUCTS and len(weight) >= 2:
        yield rank - 1, weight[-2]
    elif node.op_type == "Gemm" and len(weight) == 2:
        yield 1, weight[1 if node.attributes.get("transB", 0) else 0]
    elif node.op_type == "DynamicQuantizeLSTM":
        yield 2, weight[1]
    elif node.op_type in _RECURRENT and len(weight) == 3:
        yield 2, weight[2]
    elif node.op_type in _BROADCASTS:
        for place, extent in enumerate(weight, start=rank - len(weight)):
            if extent > 1:
                yield place, extent
