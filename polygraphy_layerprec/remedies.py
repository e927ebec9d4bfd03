"""What the owner of a model can do instead of keeping layers in FP32."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from polygraphy_layerprec.precision import FP16, PRECISIONS, QDQ
from polygraphy_layerprec.records import Remedy

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.precision import Precision
    from polygraphy_layerprec.records import RankedLayer

__all__ = ["find_remedies"]

_NORM_OPS: Final = frozenset(
    {"Pow", "Mul", "ReduceMean", "Add", "Sqrt", "Div", "Sub", "Reciprocal"}
)
_GUARDS: Final = frozenset({"Add", "Max", "Clip", "Sum", "Where"})
_PRODUCTS: Final = frozenset({"MatMul", "Gemm", "Conv"})
_NORM_OPSET: Final = 17
_NORM_DEPTH: Final = 4  # root, epsilon, mean, square, difference
_LARGEST_LISTED: Final = 3


def find_remedies(
    graph: Graph, layers: Sequence[RankedLayer], precision_name: str
) -> tuple[Remedy, ...]:
    """Returns remedies for the layers that were chosen, each with its place and value.

    Args:
        graph: The model.
        layers: The layers that stay in FP32.
        precision_name: The low precision.
    """
    if precision_name == QDQ.name:  # scales are at fault, which the reasons tell
        return ()
    precision = PRECISIONS[precision_name]
    nodes = {name: node for node in graph.nodes for name in node.outputs if name}
    chosen = [(layer, nodes[layer.outputs[0]]) for layer in layers if layer.outputs[0] in nodes]
    found = [
        *_normalizations(graph, chosen),
        *_epsilons(graph, chosen, precision),
        *_scales(graph, chosen, precision),
    ]
    if precision is FP16 and any(layer.overflow for layer in layers):
        layer = next(layer for layer in layers if layer.overflow)
        found.append(
            Remedy(
                "use BF16, which has the range of FP32 and three bits less: `--precision bf16`",
                layer.name,
                f"|x| up to {max(layer.max_abs, layer.max_abs_input):.3g}",
            )
        )
    return tuple(found)


Chosen = Sequence[tuple["RankedLayer", "Node"]]


def _normalizations(graph: Graph, chosen: Chosen) -> Iterator[Remedy]:
    """A LayerNormalization in pieces: the root of the mean square of what has its mean taken off.

    Without that subtraction it is another function, which no older operator computes.
    """
    kept = {node.index for _, node in chosen if node.op_type in _NORM_OPS}
    places = []
    for root in graph.nodes:
        if root.op_type != "Sqrt":
            continue
        pieces = [root, *_before(graph, root, depth=3)]
        around = {node.op_type for node in (*pieces, *_before(graph, root, depth=_NORM_DEPTH))}
        if {"ReduceMean", "Sub"} <= around and any(node.index in kept for node in pieces):
            places.append(root.name)
    if places:
        more = len(places) - _LARGEST_LISTED
        shown = ", ".join(places[:_LARGEST_LISTED]) + (f" and {more} more" if more > 0 else "")
        how = f"export with opset {_NORM_OPSET} or later, so that it is one LayerNormalization"
        if graph.opset() >= _NORM_OPSET:
            how = "have it exported as one LayerNormalization, instead of written out in pieces"
        value = f"in pieces, opset {graph.opset()}"
        yield Remedy(f"{how}, which TensorRT computes in FP32 inside", shown, value)


def _before(graph: Graph, node: Node, *, depth: int) -> list[Node]:
    """The nodes that a node depends on, so many steps back."""
    found, waiting = [], [node]
    for _ in range(depth):
        waiting = [
            graph.producers[n] for one in waiting for n in one.inputs if n in graph.producers
        ]
        found += waiting
    return found


def _epsilons(graph: Graph, chosen: Chosen, precision: Precision) -> Iterator[Remedy]:
    """Constants that guard against a division by zero, and are zero themselves once rounded."""
    for layer, node in chosen:
        if node.op_type not in _GUARDS:
            continue
        for value in map(abs, _scalars(graph, node)):
            if 0.0 < value <= precision.min_subnormal / 2:
                least = 10.0 ** math.ceil(math.log10(precision.min_subnormal))
                yield Remedy(
                    f"raise the epsilon to {least:g} or more: it is 0 in {precision.name.upper()}",
                    layer.name,
                    f"{value:g}",
                )


def _scales(graph: Graph, chosen: Chosen, precision: Precision) -> Iterator[Remedy]:
    """Products that overflow before what scales them down."""
    for layer, node in chosen:
        if not layer.overflow or node.op_type not in _PRODUCTS:
            continue
        for reader in graph.consumers.get(node.outputs[0], ()):
            scalars = [abs(value) for value in _scalars(graph, reader) if value]
            if reader.op_type not in {"Div", "Mul"} or not scalars:
                continue
            factor = scalars[0] if reader.op_type == "Div" else 1.0 / scalars[0]
            if factor > 1.0 and layer.max_abs / factor < precision.max_finite:
                yield Remedy(
                    f"scale before the product and not after it: move {reader.name} in front",
                    layer.name,
                    f"|x| up to {layer.max_abs:.3g}, divided by {factor:.3g}",
                )


def _scalars(graph: Graph, node: Node) -> list[float]:
    """The float constants of one element that a node reads."""
    values = []
    for name in node.inputs:
        weight = graph.weights.get(name)
        if weight is not None and graph.is_fp32(name) and math.prod(weight.shape) == 1:
            values.append(float(np.asarray(weight.read(), np.float64).reshape(())))
    return values
