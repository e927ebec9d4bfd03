"""Which nodes are lowered, and why the others are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polygraphy_layerprec.emit.mixed_onnx.eligibility import Eligibility, judge_node
from polygraphy_layerprec.emit.mixed_onnx.folded import folded_nodes
from polygraphy_layerprec.emit.mixed_onnx.operators import FOLLOWERS, READERS
from polygraphy_layerprec.emit.mixed_onnx.plan import NodePlan, Verdict, Width
from polygraphy_layerprec.emit.mixed_onnx.schema_types import DEFAULT_DOMAINS
from polygraphy_layerprec.emit.mixed_onnx.shape_arithmetic import shape_arithmetic_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from onnx import NodeProto

    from polygraphy_layerprec.emit.mixed_onnx.detached import TensorStore
    from polygraphy_layerprec.emit.mixed_onnx.graph_view import GraphView
    from polygraphy_layerprec.precision import Precision

__all__ = ["decide"]

_UNTOUCHED = Eligibility(Verdict.UNTOUCHED)
_FOLLOWS = Eligibility(Verdict.FOLLOWS)


def decide(
    view: GraphView,
    fp32_outputs: Collection[str],
    precision: Precision,
    *,
    store: TensorStore,
    io_width: Width,
) -> tuple[NodePlan, ...]:
    """Returns the plan of every node, in execution order.

    Args:
        view: The graph.
        fp32_outputs: Tensors whose nodes stay in FP32.
        precision: The low precision.
        store: Where the values of weights are, for the few rules that look at them.
        io_width: The precision of the graph's float inputs and outputs.
    """
    shapes, folded = shape_arithmetic_nodes(view), folded_nodes(view)
    judged = [
        _judge(view, index, precision, store=store, fp32_outputs=fp32_outputs, shapes=shapes)
        for index in range(len(view.nodes))
    ]
    for index in folded:
        if judged[index].verdict is Verdict.LOWERED and not _adapts(view.nodes[index]):
            judged[index] = _FOLLOWS

    def is_limited(index: int) -> bool:
        return _is_limited(view, index, precision, store=store, folded=folded)

    resolved = _resolve_followers(view, judged, io_width, folded, is_limited)
    return tuple(
        _plan(view, node, eligibility)
        for node, eligibility in zip(view.nodes, resolved, strict=True)
    )


def _judge(
    view: GraphView,
    index: int,
    precision: Precision,
    *,
    store: TensorStore,
    fp32_outputs: Collection[str],
    shapes: frozenset[int],
) -> Eligibility:
    node = view.nodes[index]
    if not fp32_outputs.isdisjoint(node.output):  # type: ignore[attr-defined]
        return Eligibility(Verdict.KEPT)
    standard = node.domain in DEFAULT_DOMAINS
    if standard and (node.op_type == "Constant" or node.op_type in READERS):
        return _UNTOUCHED
    if not any(view.is_float(name) for name in (*node.input, *node.output)):
        captures = any(view.is_float(name) for name in view.captured[index])
        return Eligibility(Verdict.LEFT, "its bodies stay in FP32") if captures else _UNTOUCHED
    if index in shapes:
        return Eligibility(Verdict.LEFT, "it computes shapes")
    return judge_node(view, node, precision, store)


def _resolve_followers(
    view: GraphView,
    judged: list[Eligibility],
    io_width: Width,
    folded: frozenset[int],
    is_limited: Callable[[int], bool],
) -> list[Eligibility]:
    """Settles the nodes that round nothing.

    They are lowered when everything variable that they read is in the low precision, or when all
    that becomes of their output is rounded anyway: the order of rounding and moving is free then.
    """
    resolved = list(judged)
    open_nodes = _follow_inputs(view, resolved, io_width, folded, is_limited)
    for index in reversed(open_nodes):
        wishes = [
            wish
            for name in view.nodes[index].output
            for wish in _wishes(view, name, resolved, io_width)
        ]
        if Width.LOW not in wishes or Width.FP32 in wishes:
            resolved[index] = _FOLLOWS
    return resolved


def _follow_inputs(
    view: GraphView,
    resolved: list[Eligibility],
    io_width: Width,
    folded: frozenset[int],
    is_limited: Callable[[int], bool],
) -> list[int]:
    """Settles the followers that their inputs decide about, and returns the others' indices."""
    widths: dict[str, Width] = dict.fromkeys(view.inputs, io_width)
    widths.update(dict.fromkeys(view.constants, Width.EITHER))
    open_nodes = []
    for index, node in enumerate(view.nodes):
        width = Width.LOW if resolved[index].verdict is Verdict.LOWERED else Width.FP32
        if index in folded:
            width = Width.EITHER
            if resolved[index].verdict is Verdict.LOWERED:
                open_nodes.append(index)
        elif _is_open(node, resolved[index]):
            width = _common_width(widths.get(n, Width.FP32) for n in _floats(view, node.input))
            if width is Width.LOW and is_limited(index):
                width = Width.FP32
            if width is not Width.LOW and _floats(view, node.output):
                open_nodes.append(index)
            elif width is not Width.LOW:
                resolved[index] = _FOLLOWS
        if node.output[0] not in view.constants:
            widths.update(dict.fromkeys(node.output, width))
    return open_nodes


def _is_limited(
    view: GraphView,
    index: int,
    precision: Precision,
    *,
    store: TensorStore,
    folded: frozenset[int],
) -> bool:
    """Whether a constant that the node moves among other values does not fit the precision."""
    names = list(dict.fromkeys(view.nodes[index].input))
    for name in names:  # grows on the way
        constant, producer = view.constants.get(name), view.producers.get(name)
        if constant is not None and view.is_float(name):
            magnitudes = np.abs(store.values(constant))
            if np.any(np.isfinite(magnitudes) & (magnitudes > precision.max_finite)):
                return True
        elif producer in folded:
            names += [source for source in view.nodes[producer].input if source not in names]
    return False


def _adapts(node: NodeProto) -> bool:
    """Whether a node that depends on constants alone may hand on either precision.

    Any other is computed once, in FP32, before the model runs: lowered, it would round what FP32
    layers read, and round more than once what the others read.
    """
    return node.op_type in FOLLOWERS or node.op_type == "DequantizeLinear"


def _is_open(node: NodeProto, eligibility: Eligibility) -> bool:
    if eligibility.verdict is not Verdict.LOWERED or node.domain not in DEFAULT_DOMAINS:
        return False
    return node.op_type in FOLLOWERS


def _common_width(widths: Iterable[Width]) -> Width:
    found = set(widths) - {Width.EITHER}
    if not found:
        return Width.EITHER
    return Width.LOW if found == {Width.LOW} else Width.FP32


def _floats(view: GraphView, names: Iterable[str]) -> list[str]:
    return [name for name in names if view.is_float(name)]


def _wishes(
    view: GraphView, name: str, resolved: list[Eligibility], io_width: Width
) -> Iterable[Width]:
    if not view.is_float(name):
        return
    if name in view.outputs:
        yield io_width
    if name in view.all_captured:
        yield Width.FP32
    for index, position in view.consumers.get(name, ()):
        node = view.nodes[index]
        yield _plan(view, node, resolved[index]).inputs[position] or Width.EITHER


def _plan(view: GraphView, node: NodeProto, eligibility: Eligibility) -> NodePlan:
    verdict, reason = eligibility.verdict, eligibility.reason
    inputs: list[Width | None] = []
    for position, name in enumerate(node.input):
        low = position in eligibility.low_inputs and verdict is Verdict.LOWERED
        width = Width.LOW if low else Width.FP32
        either = verdict is Verdict.UNTOUCHED
        inputs.append((Width.EITHER if either else width) if view.is_float(name) else None)
    outputs: list[Width | None] = []
    for position, name in enumerate(node.output):
        low = position in eligibility.low_outputs and verdict is Verdict.LOWERED
        outputs.append((Width.LOW if low else Width.FP32) if view.is_float(name) else None)
    return NodePlan(verdict, reason, tuple(inputs), tuple(outputs))
