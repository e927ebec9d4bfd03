"""Branches of an `If`: which of them run, and what they hand to the graph around."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from onnx import NodeProto

from polygraphy_layerprec.execution.emulation.node_run import NodeRun
from polygraphy_layerprec.execution.errors import NodeError
from polygraphy_layerprec.execution.kernels.ort_tensors import placed_tensor, value_of
from polygraphy_layerprec.execution.streams import Streams

if TYPE_CHECKING:
    import onnxruntime as ort

    from polygraphy_layerprec.model import Graph, Node

__all__ = ["branches_taken", "is_flipped", "join_branches", "needed_sources"]


def branches_taken(graph: Graph, node: Node, tensors: Mapping[str, Streams]) -> tuple[bool, bool]:
    """Returns whether a node runs in the reference, and in the candidate."""
    conditions = [_stream(graph, guard.condition, tensors) for guard in node.guards]
    pairs = [(c, guard.value) for c, guard in zip(conditions, node.guards, strict=True) if c]
    if len(pairs) < len(conditions):
        return False, False
    return (
        all(_truth(condition.reference) == value for condition, value in pairs),
        all(_truth(condition.candidate) == value for condition, value in pairs),
    )


def needed_sources(graph: Graph, node: Node, tensors: Mapping[str, Streams]) -> tuple[str, ...]:
    """Returns the tensors that a node reads in this run: of an `If`, those of the branch taken."""
    if not node.branches:
        return node.sources
    condition = _stream(graph, node.inputs[0], tensors)
    return (*node.inputs, *(() if condition is None else _results(node, condition.reference)))


def is_flipped(graph: Graph, node: Node, tensors: Mapping[str, Streams]) -> bool:
    """Whether reference and candidate take different branches of an `If`."""
    condition = _stream(graph, node.inputs[0], tensors) if node.branches else None
    if condition is None:
        return False
    return _truth(condition.reference) != _truth(condition.candidate)


def join_branches(
    graph: Graph, node: Node, tensors: Mapping[str, Streams]
) -> tuple[NodeRun, list[Streams | None]]:
    """Returns an `If` as a node that hands on what the branch gives, and its outputs.

    Args:
        graph: The graph.
        node: An `If`.
        tensors: The streams of its condition and of what its branches gave.
    """
    condition = _stream(graph, node.inputs[0], tensors)
    if condition is None:
        raise NodeError(f"the condition {node.inputs[0]!r} is missing")
    taken = _results(node, condition.reference)
    given = [_stream(graph, name, tensors) for name in taken]
    by_candidate = [_stream(graph, name, tensors) for name in _results(node, condition.candidate)]
    made = [
        None
        if reference is None or candidate is None
        else replace(reference, candidate=candidate.candidate, rounded=None)
        for reference, candidate in zip(given, by_candidate, strict=True)
    ]
    proto = NodeProto(op_type="If", name=node.proto.name, input=taken, output=node.outputs)
    passing = replace(node, proto=proto, branches=(), captures=())
    inputs = {n: s.reference for n, s in zip(taken, given, strict=True) if s is not None}
    outputs = [None if stream is None else stream.reference for stream in made]
    gains = dict.fromkeys(inputs, 1.0)
    return NodeRun(passing, inputs, outputs, gains=gains), made


def _results(node: Node, condition: ort.OrtValue) -> tuple[str, ...]:
    return node.branches[0 if _truth(condition) else 1]


def _truth(condition: ort.OrtValue) -> bool:
    return bool(value_of(condition).reshape(-1)[0])


def _stream(graph: Graph, name: str, tensors: Mapping[str, Streams]) -> Streams | None:
    if name in graph.weights:
        constant = placed_tensor(graph.weights[name].read())
        return Streams(constant, constant, constant, constant=True)
    return tensors.get(name)
