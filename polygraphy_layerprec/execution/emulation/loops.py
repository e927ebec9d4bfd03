"""Loop and Scan step by step, every layer of the body in low precision.

A builder unrolls them and computes the body's layers in the low precision; the state passes from
step to step as these layers leave it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from polygraphy_layerprec.execution.errors import NodeError
from polygraphy_layerprec.execution.kernels.ort_tensors import tensor_of, value_of
from polygraphy_layerprec.model import ModelError, Role, build_graph
from polygraphy_layerprec.model.element_types import type_of_runtime_name

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnxruntime as ort

    from polygraphy_layerprec.model import Graph, Node

    Array = np.ndarray[Any, Any]
    Body = Callable[[Mapping[str, Array]], Mapping[str, Array]]
    """Runs the body once: from its inputs and what it captures to its outputs."""

_LARGEST_CONSTANT_BYTES: Final = 1 << 28

__all__ = ["body_graph", "run_loop", "run_scan"]


def body_graph(graph: Graph, node: Node, feeds: Mapping[str, ort.OrtValue]) -> Graph:
    """Returns the body of a Loop or Scan as a graph of its own.

    Constants that it captures are constants of it too: they are clipped and folded as such.

    Args:
        graph: The graph that the node is from.
        node: A Loop or Scan.
        feeds: A value for each of the node's sources, which tells types.

    Raises:
        NodeError: If the body cannot be a graph of its own.
    """
    (body,) = (a.g for a in node.proto.attribute if a.name == "body")
    made = onnx.GraphProto()
    made.CopyFrom(body)
    for name in node.captures:
        if _is_constant(graph, name) and _is_plain(feeds[name]):
            made.initializer.append(numpy_helper.from_array(value_of(feeds[name]), name))
        else:
            kind = type_of_runtime_name(feeds[name].data_type())
            made.input.append(onnx.ValueInfoProto(name=name, type=kind))
    for value, source in zip(made.input, _body_sources(node), strict=False):
        if source and not value.type.tensor_type.elem_type:
            kind = type_of_runtime_name(feeds[source].data_type())
            value.type.CopyFrom(kind)
        value.type.tensor_type.ClearField("shape")  # what a body declares need not hold
    imports = [helper.make_opsetid(domain, version) for domain, version in graph.opsets.items()]
    model = helper.make_model(made, opset_imports=imports, ir_version=graph.ir_version)
    try:
        return build_graph(model, name=node.name, folder=graph.folder)
    except ModelError as error:
        raise NodeError(str(error)) from error


def run_loop(
    node: Node, graph: Graph, run_body: Body, feeds: Mapping[str, ort.OrtValue]
) -> list[ort.OrtValue | None] | None:
    """Returns the outputs of a Loop: last states, then what each step gave, stacked.

    None if it makes no step, and so computes nothing.

    Args:
        node: The node.
        graph: Its body.
        run_body: Runs the body once.
        feeds: A value for each of the node's sources.
    """
    trips = int(value_of(feeds[node.inputs[0]])) if node.inputs[0] else np.iinfo(np.int64).max
    goes_on = bool(value_of(feeds[node.inputs[1]])) if node.inputs[1] else True
    states = [value_of(feeds[name]) for name in node.inputs[2:]]
    names = [value.name for value in graph.inputs]
    captured = {name: value_of(feeds[name]) for name in node.captures if name in names}
    collected: list[list[Array]] = [[] for _ in graph.outputs[1 + len(states) :]]
    step = 0
    while goes_on and step < trips:
        fed = (np.array(step, np.int64), np.array(goes_on), *states)
        made = run_body({**captured, **dict(zip(names, fed, strict=False))})
        condition, *results = (made[name] for name in graph.outputs)
        goes_on, states = bool(condition), results[: len(states)]
        for parts, part in zip(collected, results[len(states) :], strict=True):
            parts.append(part)
        step += 1
    if not step:
        return None
    return _as_tensors(node, [*states, *(np.stack(parts) for parts in collected)])


def run_scan(
    node: Node, graph: Graph, run_body: Body, feeds: Mapping[str, ort.OrtValue]
) -> list[ort.OrtValue | None]:
    """Returns the outputs of a Scan: last states, then what each step gave, stacked.

    Args:
        node: The node.
        graph: Its body.
        run_body: Runs the body once.
        feeds: A value for each of the node's sources.
    """
    attributes = node.attributes
    count = int(attributes["num_scan_inputs"])
    given = [value_of(feeds[name]) for name in node.inputs]
    states, sequences = given[: len(given) - count], given[len(given) - count :]
    axes = attributes.get("scan_input_axes") or [0] * count
    backwards = attributes.get("scan_input_directions") or [0] * count
    moved = [
        np.moveaxis(sequence, axis, 0)[:: -1 if reverse else 1]
        for sequence, axis, reverse in zip(sequences, axes, backwards, strict=True)
    ]
    names = [value.name for value in graph.inputs]
    captured = {name: value_of(feeds[name]) for name in node.captures if name in names}
    outputs = graph.outputs
    collected: list[list[Array]] = [[] for _ in outputs[len(states) :]]
    for elements in zip(*moved, strict=True):
        made = run_body({**captured, **dict(zip(names, (*states, *elements), strict=False))})
        results = [made[name] for name in outputs]
        states = results[: len(states)]
        for parts, part in zip(collected, results[len(states) :], strict=True):
            parts.append(part)
    out_axes = attributes.get("scan_output_axes") or [0] * len(collected)
    out_backwards = attributes.get("scan_output_directions") or [0] * len(collected)
    stacked = [
        np.ascontiguousarray(np.moveaxis(np.stack(parts[:: -1 if reverse else 1]), 0, axis))
        for parts, axis, reverse in zip(collected, out_axes, out_backwards, strict=True)
    ]
    return _as_tensors(node, [*states, *stacked])


def _is_constant(graph: Graph, name: str) -> bool:
    producer = graph.producers.get(name)
    return name in graph.weights or (producer is not None and producer.role is Role.FOLDED)


def _is_plain(tensor: ort.OrtValue) -> bool:
    """Whether a value fits a message; few bits and much data stay where they are."""
    values = value_of(tensor)
    return values.dtype.kind in "biuf" and values.nbytes <= _LARGEST_CONSTANT_BYTES


def _body_sources(node: Node) -> Sequence[str]:
    """The tensors that tell the types of the body's inputs; empty where an operator does."""
    if node.op_type == "Loop":
        return ("", "", *node.inputs[2:])
    return node.inputs


def _as_tensors(node: Node, values: Sequence[Array | None]) -> list[ort.OrtValue | None]:
    return [
        tensor_of(np.ascontiguousarray(value)) if name and value is not None else None
        for name, value in zip(node.outputs, values, strict=False)
    ]
