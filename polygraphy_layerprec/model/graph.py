"""The model as the later stages see it: nodes in execution order, and constants by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, helper

from polygraphy_layerprec.model.errors import ModelError
from polygraphy_layerprec.model.external_data import DataFolder
from polygraphy_layerprec.model.names import block_of, unique_names
from polygraphy_layerprec.model.node_order import sort_nodes
from polygraphy_layerprec.model.operators import is_exact, normal_domain
from polygraphy_layerprec.model.weights import Weight, locate_weight

__all__ = ["Graph", "GraphInput", "Node", "Role", "build_graph"]


class Role(Enum):
    """What a node means to the measurement."""

    COMPUTES = "computes"
    """Rounds its result: a layer, if an output is of a floating-point type."""

    EXACT = "exact"
    """Moves values or chooses among them: introduces no error."""

    FOLDED = "folded"
    """Depends on constants alone: a builder computes it once, so it counts as a weight."""


@dataclass(frozen=True, slots=True)
class GraphInput:
    """One input that a user feeds."""

    name: str
    """ONNX name."""

    dtype: np.dtype[Any]
    """Element type."""

    shape: tuple[int | str | None, ...] | None
    """Extent of each axis: fixed, named, or unknown; None when not even the rank is known."""


@dataclass(frozen=True)
class Node:
    """One node of the main graph."""

    index: int
    """Position in execution order, from 0."""

    name: str
    """Unique name."""

    role: Role
    """What it means to the measurement."""

    proto: NodeProto
    """The node as it stands in the model; large constants in its subgraphs stay on disk."""

    captures: tuple[str, ...]
    """Tensors that its subgraphs take from the main graph."""

    @cached_property
    def op_type(self) -> str:
        """ONNX operator."""
        return self.proto.op_type

    @cached_property
    def domain(self) -> str:
        """Operator domain; empty for ONNX's own."""
        return normal_domain(self.proto.domain)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Input tensors; empty names for absent ones."""
        return tuple(self.proto.input)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Output tensors; empty names for unused ones."""
        return tuple(self.proto.output)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Every tensor it reads: its inputs and what its subgraphs capture."""
        return tuple(dict.fromkeys(name for name in (*self.inputs, *self.captures) if name))

    @cached_property
    def attributes(self) -> Mapping[str, Any]:
        """Attributes present on the node, as Python values; text is str."""
        try:
            return {attribute.name: _python_value(attribute) for attribute in self.proto.attribute}
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"An attribute of node {self.name!r} is damaged: {error}.\n"
                f"Copy or export the model again."
            ) from error

    @property
    def block(self) -> str:
        """The part of the model it belongs to."""
        return block_of(self.proto.name)


@dataclass(frozen=True)
class Graph:
    """A model without its weights."""

    name: str
    """File name without folders; empty for a model in memory."""

    folder: DataFolder
    """Where the files with external data are."""

    nodes: tuple[Node, ...]
    """Every node but constants, in execution order."""

    inputs: tuple[GraphInput, ...]
    """What a user feeds, initialisers excepted."""

    outputs: tuple[str, ...]
    """Names of the model's outputs."""

    weights: Mapping[str, Weight]
    """Constants by tensor name: initialisers and Constant nodes."""

    opsets: Mapping[str, int]
    """Operator-set version by domain."""

    ir_version: int
    """Version of the ONNX file format."""

    weight_bytes: int
    """Size of all weights."""

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read a tensor, in execution order."""
        consumers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.sources:
                consumers.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in consumers.items()}

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that writes a tensor."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    def opset(self, domain: str = "") -> int:
        """Operator-set version of `domain`, 1 where the model does not say."""
        return self.opsets.get(domain, 1)


def build_graph(model: onnx.ModelProto, *, name: str, folder: DataFolder) -> Graph:
    """Returns the graph of `model`, whose local functions are inlined already.

    Args:
        model: The model; its large tensors may be references to files.
        name: File name for messages and records.
        folder: Where the files with external data are.

    Raises:
        ModelError: If the graph is not one: a tensor nobody makes, two that share a name, a
            cycle, or data that is missing.
    """
    graph = model.graph
    _check_text(model)
    weights = {t.name: locate_weight(t, t.name, folder) for t in graph.initializer}
    protos = []
    for proto in graph.node:
        weight = _constant_weight(proto, folder)
        if weight is None:
            protos.append(proto)
        else:
            weights[weight.name] = weight
    inputs = [value for value in graph.input if value.name not in weights]
    known = {*weights, *(value.name for value in inputs)}
    ordered = sort_nodes(protos, known)
    _check_outputs(graph, known.union(*(proto.output for proto in protos)))
    opsets = {normal_domain(o.domain): o.version for o in model.opset_import}
    return Graph(
        name=name,
        folder=folder,
        nodes=tuple(_make_nodes(ordered, set(weights))),
        inputs=tuple(_graph_input(value) for value in inputs),
        outputs=tuple(value.name for value in graph.output),
        weights=weights,
        opsets=opsets,
        ir_version=model.ir_version,
        weight_bytes=sum(weight.nbytes for weight in weights.values()),
    )


def _check_text(model: onnx.ModelProto) -> None:
    """Protobuf hands out names that are no text as bytes."""
    graph = model.graph
    names = [item.name for item in (*graph.initializer, *graph.input, *graph.output)]
    names += [opset.domain for opset in model.opset_import]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
    damaged = next((name for name in names if not isinstance(name, str)), None)
    if damaged is not None:
        raise ModelError(
            f"A name in the model is not text: {damaged!r}.\nCopy or export the model again."
        )


def _check_outputs(graph: GraphProto, made: set[str]) -> None:
    missing = [value.name for value in graph.output if value.name not in made]
    if missing or not graph.output:
        raise ModelError(
            f"The model has {len(graph.output)} outputs, and nothing makes these: {missing!r}.\n"
            f"The model is incomplete: export it again."
        )


def _make_nodes(
    ordered: Sequence[tuple[NodeProto, tuple[str, ...]]], constants: set[str]
) -> Iterator[Node]:
    names = unique_names((p.name, p.op_type, p.output) for p, _ in ordered)
    for index, ((proto, captures), name) in enumerate(zip(ordered, names, strict=True)):
        role = _role(proto, captures, constants)
        if role is Role.FOLDED:
            constants.update(proto.output)
        yield Node(index, name, role, proto, captures)


def _role(proto: NodeProto, captures: Sequence[str], constants: set[str]) -> Role:
    sources = [name for name in (*proto.input, *captures) if name]
    if sources and all(name in constants for name in sources):
        return Role.FOLDED
    reduction = next(
        (a.s.decode(errors="replace") for a in proto.attribute if a.name == "reduction"), "none"
    )
    exact = is_exact(proto.op_type, proto.domain, reduction=reduction)
    return Role.EXACT if exact else Role.COMPUTES


def _constant_weight(proto: NodeProto, folder: DataFolder) -> Weight | None:
    if proto.op_type != "Constant" or normal_domain(proto.domain):
        return None
    name = proto.output[0]
    attribute = proto.attribute[0] if proto.attribute else AttributeProto()
    if attribute.name == "value":
        return locate_weight(attribute.t, name, folder)
    if attribute.name not in {"value_float", "value_floats", "value_int", "value_ints"}:
        return None  # text and sparse constants run as nodes
    dtype = np.float32 if "float" in attribute.name else np.int64
    values = np.array(helper.get_attribute_value(attribute), dtype)
    return locate_weight(onnx.numpy_helper.from_array(values, name), name, folder)


def _graph_input(value: onnx.ValueInfoProto) -> GraphInput:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        kind = value.type.WhichOneof("value")
        raise ModelError(
            f"The model's input {value.name!r} is not a tensor but a {kind}, which cannot be fed.\n"
            f"Cut the model behind it, for example with `polygraphy surgeon extract`."
        )
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    if not tensor.HasField("shape"):
        return GraphInput(value.name, dtype, None)
    shape = tuple(_extent(dim) for dim in tensor.shape.dim)
    return GraphInput(value.name, dtype, shape)


def _extent(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value > 0 else None
    return dim.dim_param or None


def _python_value(attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value) if not value.external_data else value
    if hasattr(value, "__len__") and not isinstance(value, str):
        return [v.decode(errors="replace") if isinstance(v, bytes) else v for v in value]
    return value
