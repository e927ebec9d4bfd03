"""Which tensors of a model an error is about: its outputs, or tensors within it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from onnxruntime.capi import onnxruntime_pybind11_state

from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.model.operators import normal_domain

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph, Node

__all__ = ["outputs_that_count", "part_that_counts"]


def outputs_that_count(graph: Graph, outputs: Collection[str] | None) -> tuple[str, ...]:
    """Returns the outputs that were asked for, all by default, in the model's order.

    Raises:
        ExecutionError: If the model has no such output.
    """
    unknown = [name for name in outputs or () if name not in graph.outputs]
    if unknown:
        raise ExecutionError(
            f"The model has no output named {unknown[0]!r}.\n"
            f"Note: Its outputs are: {list(graph.outputs)!r}. Choose among them with `--outputs`."
        )
    return tuple(name for name in graph.outputs if not outputs or name in outputs)


def part_that_counts(
    graph: Graph, outputs: Collection[str] | None
) -> tuple[Graph, tuple[str, ...]]:
    """Returns the part of a model that errors are judged by, and its outputs that count.

    With tensors within the model among `outputs`, the part is what makes them; its nodes keep
    their indices. Where every output needs an operator that ONNX-Runtime lacks, it is the whole
    model, and what the first such operators take counts.

    Args:
        graph: The model.
        outputs: Names of outputs or of other tensors, the outputs by default.

    Raises:
        ExecutionError: If the model makes no such tensor.
    """
    part = _part(graph, outputs)
    return part, outputs_that_count(part, outputs if part is graph else None)


def _part(graph: Graph, outputs: Collection[str] | None) -> Graph:
    made = [name for name in outputs or () if name in graph.producers or name in graph.outputs]
    for name in outputs or ():
        if name not in made:
            raise ExecutionError(
                f"The model has no output named {name!r}, nor any other tensor.\n"
                f"Note: Its outputs are: {list(graph.outputs)!r}. Choose among them, or among the "
                f"tensors within the model, with `--outputs`."
            )
    if not set(made) <= set(graph.outputs):
        needed = _needed_for(graph, made)
        nodes = tuple(node for node in graph.nodes if node.index in needed)
        return replace(graph, nodes=nodes, outputs=tuple(dict.fromkeys(made)))
    counted = made or graph.outputs
    lacking = {node.index for node in graph.nodes if _is_lacking(node)}
    if not lacking or any(not lacking & _needed_for(graph, [name]) for name in counted):
        return graph
    first = [
        node
        for node in graph.nodes
        if node.index in lacking & _needed_for(graph, counted)
        and not lacking & _needed_for(graph, node.sources)
    ]
    taken = [name for node in first for name in node.sources if name in graph.producers]
    return replace(graph, outputs=tuple(dict.fromkeys(taken))) if taken else graph


def _needed_for(graph: Graph, names: Iterable[str]) -> set[int]:
    """Indices of the nodes that tensors depend on."""
    needed: set[int] = set()
    waiting = [graph.producers[name] for name in names if name in graph.producers]
    while waiting:
        node = waiting.pop()
        if node.index not in needed:
            needed.add(node.index)
            conditions = [guard.condition for guard in node.guards]
            sources = (*node.sources, *conditions)
            waiting += [graph.producers[name] for name in sources if name in graph.producers]
    return needed


def _is_lacking(node: Node) -> bool:
    return (node.domain, node.op_type) not in _known_operators()


@cache
def _known_operators() -> frozenset[tuple[str, str]]:
    schemas = onnxruntime_pybind11_state.get_all_operator_schema()
    return frozenset((normal_domain(schema.domain), schema.name) for schema in schemas)
