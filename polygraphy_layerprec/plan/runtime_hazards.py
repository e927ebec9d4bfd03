"""Patterns of nodes that a runtime cannot bear in low precision, though they are valid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph, Node

__all__ = ["crashes_onnxruntime"]

_LEAST_RANK = 3
_MATRIX_RANK = 2


def crashes_onnxruntime(graph: Graph, node: Node) -> bool:
    """Returns whether ONNX-Runtime would crash where this node hands on low precision.

    Between a Transpose that moves the first axis inwards and a MatMul by a matrix, a Cast to FP32
    is fatal on x86-64 at the highest level of optimisation, and that is the default: a fusion
    swaps Cast and Transpose and leaves its nodes unresolved, which the pass after it does not
    expect. Reported for ONNX-Runtime 1.24, measured with 1.32. On the CPU, which multiplies in
    FP32, that Cast is inserted before every lowered MatMul.
    """
    if node.op_type != "Transpose" or not _moves_first_axis_inwards(node):
        return False
    names = [node.outputs[0]]
    for name in names:  # grows on the way
        for consumer in graph.consumers.get(name, ()):
            if consumer.op_type == "Identity":  # gone before the fusion looks
                names.append(consumer.outputs[0])
            elif consumer.op_type == "MatMul" and any(
                _rank(graph, other) <= _MATRIX_RANK for other in consumer.inputs if other != name
            ):
                return True
    return False


def _rank(graph: Graph, name: str) -> int:
    shape: tuple[Any, ...] | None = graph.types[name].shape if name in graph.types else None
    return _LEAST_RANK if shape is None else len(shape)


def _moves_first_axis_inwards(node: Node) -> bool:
    axes = list(node.attributes.get("perm", ()))
    rank = len(axes)
    if rank < _LEAST_RANK:
        return False
    inner = list(range(1, rank))
    return axes in ([*inner[:-1], 0, inner[-1]], [*inner, 0])
