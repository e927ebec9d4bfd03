"""Names and types of a graph: who makes a tensor, who reads it, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, shape_inference

from polygraphy_layerprec.emit.mixed_onnx.schema_types import (
    DEFAULT_DOMAINS,
    bound_variables,
    signature,
)
from polygraphy_layerprec.emit.mixed_onnx.scopes import captured_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["NOT_A_TENSOR", "GraphView", "view_graph"]

NOT_A_TENSOR = -1
"""Stands for the element type of a sequence, an optional or a map."""


@dataclass(frozen=True, slots=True)
class GraphView:
    """The main graph of a model, its nodes in execution order."""

    nodes: tuple[NodeProto, ...]
    """The nodes."""

    opsets: Mapping[str, int]
    """Opset version by domain, the default domain being the empty name."""

    types: Mapping[str, int]
    """Element type by tensor name, `NOT_A_TENSOR` for other values; unknown ones are absent."""

    ranks: Mapping[str, int]
    """Number of axes by tensor name, 0 for a scalar; unknown ones are absent."""

    constants: Mapping[str, TensorProto]
    """Weights by tensor name: initializers that no caller can override, and Constant nodes."""

    inputs: frozenset[str]
    """Graph inputs, initializers that a caller can override included."""

    outputs: frozenset[str]
    """Graph outputs."""

    captured: tuple[frozenset[str], ...]
    """For each node, the tensors that its bodies read from this graph."""

    all_captured: frozenset[str]
    """What the bodies of all nodes read from this graph."""

    producers: Mapping[str, int]
    """Index of the node that makes a tensor."""

    consumers: Mapping[str, tuple[tuple[int, int], ...]]
    """Node index and input position for each use of a tensor, uses in bodies aside."""

    def is_float(self, name: str) -> bool:
        """Returns whether a name is that of an FP32 tensor."""
        return self.types.get(name) == TensorProto.FLOAT


def view_graph(model: ModelProto) -> GraphView:
    """Returns the main graph of a model whose nodes are sorted.

    Args:
        model: A model small enough to be serialised; its weights may be stubs.
    """
    graph = model.graph
    opsets = {_domain(entry.domain): entry.version for entry in model.opset_import}
    consumers: dict[str, list[tuple[int, int]]] = {}
    for index, node in enumerate(graph.node):
        for position, name in enumerate(node.input):
            consumers.setdefault(name, []).append((index, position))
    inputs = frozenset(value.name for value in graph.input)
    captured = tuple(captured_names(node) for node in graph.node)
    constants = {
        tensor.name: tensor for tensor in graph.initializer if tensor.name not in inputs
    } | dict(_constant_nodes(graph.node))
    inferred = _infer_shapes(model)
    ranks = dict(_declared_ranks(inferred))
    return GraphView(
        nodes=tuple(graph.node),
        opsets=opsets,
        types=_element_types(inferred, opsets),
        ranks=ranks | {name: len(tensor.dims) for name, tensor in constants.items()},
        constants=constants,
        inputs=inputs,
        outputs=frozenset(value.name for value in graph.output),
        captured=captured,
        all_captured=frozenset().union(*captured),
        producers={
            name: index for index, node in enumerate(graph.node) for name in node.output if name
        },
        consumers={name: tuple(uses) for name, uses in consumers.items() if name},
    )


def _domain(name: str) -> str:
    return "" if name in DEFAULT_DOMAINS else name


def _constant_nodes(nodes: Iterable[NodeProto]) -> Iterator[tuple[str, TensorProto]]:
    for node in nodes:
        if node.op_type != "Constant" or node.domain not in DEFAULT_DOMAINS:
            continue
        name = node.output[0]
        for attribute in node.attribute:
            if attribute.name == "value":
                yield name, attribute.t
            elif attribute.name == "value_float":
                yield name, TensorProto(data_type=TensorProto.FLOAT, float_data=[attribute.f])
            elif attribute.name == "value_floats":
                values = list(attribute.floats)
                yield (
                    name,
                    TensorProto(data_type=TensorProto.FLOAT, dims=[len(values)], float_data=values),
                )


def _infer_shapes(model: ModelProto) -> GraphProto:
    try:
        return shape_inference.infer_shapes(model, data_prop=False).graph
    except shape_inference.InferenceError:
        return model.graph  # what the schemas alone say is less, but never wrong


def _declared_ranks(graph: GraphProto) -> Iterator[tuple[str, int]]:
    for values in (graph.value_info, graph.input, graph.output):
        for value in values:
            if value.type.tensor_type.HasField("shape"):
                yield value.name, len(value.type.tensor_type.shape.dim)


def _element_types(graph: GraphProto, opsets: Mapping[str, int]) -> dict[str, int]:
    types = dict(_declared_types(graph))
    for node in graph.node:
        _complete_types(node, opsets, types)
    return types


def _declared_types(graph: GraphProto) -> Iterator[tuple[str, int]]:
    for values in (graph.value_info, graph.input, graph.output):
        for value in values:
            yield from _value_type(value)
    for tensor in graph.initializer:
        yield tensor.name, tensor.data_type
    for sparse in graph.sparse_initializer:
        yield sparse.values.name, sparse.values.data_type


def _value_type(value: ValueInfoProto) -> Iterator[tuple[str, int]]:
    kind = value.type.WhichOneof("value")
    if kind not in (None, "tensor_type", "sparse_tensor_type"):
        yield value.name, NOT_A_TENSOR
    elif value.type.tensor_type.elem_type:
        yield value.name, value.type.tensor_type.elem_type


def _complete_types(node: NodeProto, opsets: Mapping[str, int], types: dict[str, int]) -> None:
    """Names the types that shape inference left open, from the operator's own constraints.

    GroupNormalization of opset 21 is such a case, and so is whatever reads the output of an
    operator without a schema: its other operands tell the type.
    """
    operands = [name for name in (*node.input, *node.output) if name]
    if all(name in types for name in operands):
        return
    formals = signature(node, opsets)
    if formals is None:
        return
    bound = bound_variables(node, formals, types)
    for names, parameters in ((node.input, formals.inputs), (node.output, formals.outputs)):
        for name, formal in zip(names, parameters, strict=True):
            known = bound.get(formal.variable, set())
            if name and len(known) == 1:
                types.setdefault(name, *known)
            elif name and formal.allowed == {"tensor(float)"}:
                types.setdefault(name, TensorProto.FLOAT)
