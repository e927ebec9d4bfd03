"""From the nodes of an ONNX model to the layers that TensorRT's parser made of them.

Tensors that are ONNX values keep their ONNX name, which is unique; layer names are neither unique
nor complete. So the layers of a node are those between its output tensors and its input tensors.

This text is also part of every emitted script.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, NamedTuple

from polygraphy_layerprec.emit.network_view import find_region

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from polygraphy_layerprec.emit.network_view import LayerView, NetworkView

__all__ = [
    "LayerConstraint",
    "LayerMatch",
    "as_layer_constraints",
    "describe_unmatched",
    "match_layers",
    "shorten",
]

_REGION_OPERATORS = ("If", "Loop", "Scan")
_NEAREST_NAMES = 3
_LONGEST_SHOWN = 80
_MOST_DESCRIBED = 10


class LayerConstraint(NamedTuple):
    """One ONNX node to keep in FP32."""

    name: str
    """Name of the node; may be empty or shared with other nodes."""

    op: str
    """ONNX operator."""

    inputs: tuple[str, ...]
    """Names of the input tensors; empty names for absent ones."""

    outputs: tuple[str, ...]
    """Names of the output tensors."""

    reason: str
    """Why it was chosen, in words."""

    trace: tuple[str, ...] = ()
    """Within functions and branches, the node and the calls and branches around it, innermost
    first, as the parser writes them in the metadata of layers."""


class LayerMatch(NamedTuple):
    """The layers of one constraint."""

    constraint: LayerConstraint
    """What was asked for."""

    method: str
    """How they were found: `tensor names`, `metadata` or `layer names`; empty if they were not."""

    layers: tuple[LayerView, ...]
    """What it means in the network."""


def as_layer_constraints(constraints: Iterable[Any]) -> list[LayerConstraint]:
    """Returns records of constraints as what a script says of them."""
    return [
        LayerConstraint(c.name, c.op, c.inputs, c.outputs, c.reason, c.trace) for c in constraints
    ]


def match_layers(view: NetworkView, constraints: Sequence[LayerConstraint]) -> list[LayerMatch]:
    """Returns the layers of each constraint, in the order of the constraints."""
    by_tensor: dict[str, list[LayerView]] = {}
    for tensor in view.tensors:
        if tensor.producer is not None:
            by_tensor.setdefault(tensor.name, []).append(tensor.producer)
    by_trace: dict[tuple[str, ...], list[LayerView]] = {}
    by_metadata: dict[str, list[LayerView]] = {}
    by_name: dict[str, list[LayerView]] = {}
    for layer in view.layers:
        trace = _trace_of(layer)
        by_trace.setdefault(trace, []).append(layer)
        by_metadata.setdefault(trace[0], []).append(layer)
        by_name.setdefault(layer.name, []).append(layer)

    def match(constraint: LayerConstraint) -> LayerMatch:
        placed = by_trace.get(constraint.trace, []) if constraint.trace else []
        if placed:
            found = _of_trace(placed, constraint, view)
            return LayerMatch(constraint, "metadata", found)
        starts = [layer for name in constraint.outputs if name for layer in by_tensor.get(name, ())]
        if starts:
            return LayerMatch(
                constraint, "tensor names", _layers_of(constraint, starts, by_metadata, view)
            )
        for method, index in (("metadata", by_metadata), ("layer names", by_name)):
            if constraint.name and constraint.name in index:
                return LayerMatch(constraint, method, tuple(index[constraint.name]))
        return LayerMatch(constraint, "", ())

    return [match(constraint) for constraint in constraints]


def describe_unmatched(unmatched: Sequence[LayerConstraint], view: NetworkView) -> str:
    """Returns what an error or a warning says about constraints that match nothing."""
    tensors = {t.name for t in view.tensors if t.producer is not None}
    names = sorted({layer.name for layer in view.layers} | tensors)
    shortened = [name[:_LONGEST_SHOWN] for name in names]
    lines = []
    for constraint in unmatched[:_MOST_DESCRIBED]:
        wanted = constraint.name or next(iter(constraint.outputs), "")
        near = difflib.get_close_matches(wanted[:_LONGEST_SHOWN], shortened, n=_NEAREST_NAMES)
        hint = f"nearest in the network: {', '.join(map(ascii, near))}" if near else "nothing near"
        lines.append(f"  {shorten(wanted)} of type {shorten(constraint.op)}; {hint}")
    if len(unmatched) > _MOST_DESCRIBED:
        lines.append(f"  and {len(unmatched) - _MOST_DESCRIBED} more")
    return "\n".join(lines)


def shorten(name: str) -> str:
    """Returns a name as any terminal can print it: quoted, in ASCII, not longer than a line."""
    return ascii(name if len(name) <= _LONGEST_SHOWN else f"{name[: _LONGEST_SHOWN - 3]}...")


def _trace_of(layer: LayerView) -> tuple[str, ...]:
    # `[ONNX Layer: <name> | <name of the subgraph> | ...]`
    text = layer.metadata
    if text.startswith("[ONNX Layer: ") and text.endswith("]"):
        text = text[len("[ONNX Layer: ") : -1]
    return tuple(text.split(" | "))


def _of_trace(
    starts: list[LayerView], constraint: LayerConstraint, view: NetworkView
) -> tuple[LayerView, ...]:
    """Returns the layers of a node that its metadata tell, and those without any before them."""
    if constraint.op in _REGION_OPERATORS:
        return _within_region(starts, _walk_back(starts, constraint, ""), view)
    found = dict.fromkeys(starts)
    for layer in (pending := list(found)):  # grows on the way
        for producer in layer.producers:
            if producer not in found and not producer.metadata:
                found[producer] = None
                pending.append(producer)
    return tuple(found)


def _layers_of(
    constraint: LayerConstraint,
    starts: list[LayerView],
    by_metadata: Mapping[str, list[LayerView]],
    view: NetworkView,
) -> tuple[LayerView, ...]:
    if constraint.op in _REGION_OPERATORS:
        return _within_region(starts, _walk_back(starts, constraint, ""), view)
    # An input may be missing from the network, where the parser left a node out; then the layers
    # of the nodes before are told by their metadata.
    name = constraint.name or f"node_of_{constraint.outputs[0]}"
    return tuple(_walk_back(starts, constraint, name if name in by_metadata else ""))


def _walk_back(
    starts: list[LayerView], constraint: LayerConstraint, only_node: str
) -> dict[LayerView, None]:
    """Returns the layers from `starts` back to the inputs, if need be of one node only."""
    inputs = {name for name in constraint.inputs if name}
    found = dict.fromkeys(starts)
    for layer in (pending := list(found)):  # grows on the way
        for tensor in layer.inputs:
            producer = None if tensor is None or tensor.name in inputs else tensor.producer
            if producer is None or producer in found:
                continue
            if not only_node or not producer.metadata or _trace_of(producer)[0] == only_node:
                found[producer] = None
                pending.append(producer)
    return found


def _within_region(
    starts: list[LayerView], found: Iterable[LayerView], view: NetworkView
) -> tuple[LayerView, ...]:
    """Returns what depends on the boundaries of the region that ends with `starts`.

    The body of a loop or a branch may read any tensor of the graph around it, whose layers are
    not part of it.
    """
    regions = [find_region(start, view.trt) for start in starts]
    inside = dict.fromkeys(starts)
    for layer in found:
        region = find_region(layer, view.trt)
        if region is not None and any(region is own for own in regions):
            inside[layer] = None
    reachable = set(found)
    for layer in (pending := list(inside)):  # grows on the way
        for consumer in layer.consumers:
            if consumer in reachable and consumer not in inside:
                inside[consumer] = None
                pending.append(consumer)
    return tuple(inside)
