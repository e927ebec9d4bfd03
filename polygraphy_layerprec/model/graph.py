"""The model as every later stage sees it: typed values, nodes with roles, constants by name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper

from polygraphy_layerprec.model.arity import check_arity, check_opsets
from polygraphy_layerprec.model.element_types import UNKNOWN_TYPE, ValueType
from polygraphy_layerprec.model.errors import ModelError
from polygraphy_layerprec.model.expansion import Expansion, PlacedNode, expand
from polygraphy_layerprec.model.external_data import DataFolder
from polygraphy_layerprec.model.names import unique_names
from polygraphy_layerprec.model.node import GraphInput, Node
from polygraphy_layerprec.model.operators import draws_random_numbers, normal_domain
from polygraphy_layerprec.model.ordering import sort_nodes, two_producers
from polygraphy_layerprec.model.roles import Role, find_roles
from polygraphy_layerprec.model.value_types import infer_types
from polygraphy_layerprec.model.weights import Weight, locate_weight

__all__ = ["Graph", "GraphInput", "Node", "build_graph"]


@dataclass(frozen=True)
class Graph:
    """A model without its weights: one flat list of nodes, calls and branches expanded."""

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

    types: Mapping[str, ValueType]
    """Element type and shape of every value."""

    opsets: Mapping[str, int]
    """Operator-set version by domain."""

    ir_version: int
    """Version of the ONNX file format."""

    weight_bytes: int
    """Size of all weights."""

    proto: onnx.ModelProto
    """The model as it stands in the file; large weights stay on disk."""

    @cached_property
    def layers(self) -> tuple[Node, ...]:
        """The nodes that a precision is chosen for."""
        return tuple(node for node in self.nodes if node.is_layer)

    @property
    def decided_nodes(self) -> tuple[Node, ...]:
        """The nodes that a decision on a layer is about: the layers."""
        return self.layers

    def element_type(self, name: str) -> int:
        """Member of `TensorProto.DataType`, `NOT_A_TENSOR`, or `UNKNOWN_TYPE`."""
        found = self.types.get(name)
        return UNKNOWN_TYPE if found is None else found.element_type

    def is_fp32(self, name: str) -> bool:
        """Whether a name is that of an FP32 tensor."""
        return self.element_type(name) == TensorProto.FLOAT

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

    @cached_property
    def last_uses(self) -> Mapping[int, tuple[str, ...]]:
        """The tensors that nobody needs any more once a node ran, by the node's index."""
        last = {}
        for node in self.nodes:
            conditions = (guard.condition for guard in node.guards)
            for name in (*node.outputs, *node.sources, *conditions):
                last[name] = node.index
        uses: dict[int, list[str]] = {}
        for name in last.keys() - set(self.outputs):
            uses.setdefault(last[name], []).append(name)
        return {index: tuple(names) for index, names in uses.items()}

    def opset(self, domain: str = "") -> int:
        """Operator-set version of `domain`, 1 where the model does not say."""
        return self.opsets.get(domain, 1)


def build_graph(
    model: onnx.ModelProto,
    *,
    name: str,
    folder: DataFolder,
    known_weights: Mapping[str, Weight] = MappingProxyType({}),
) -> Graph:
    """Returns the graph of `model`.

    Args:
        model: The model; its large tensors may be references to files.
        name: File name for messages and records.
        folder: Where the files with external data are.
        known_weights: Constants beside those of the model, by tensor name; their data may lie
            elsewhere.

    Raises:
        ModelError: If the graph is not one: a tensor nobody makes, two that share a name, a
            cycle, or data that is missing; or if it is nested without bounds.
    """
    _check_text(model)
    check_opsets(model)
    expansion = expand(model)
    weights = {n: locate_weight(t, n, folder) for n, t in expansion.weights.items()}
    weights.update(known_weights)
    inputs = [value for value in model.graph.input if value.name not in weights]
    fed = [value.name for value in inputs]
    nodes = list(_without_constants(expansion, weights, fed, folder))
    known = {*weights, *fed}
    check_arity(nodes)
    ordered = sort_nodes(nodes, known)
    _check_outputs(model.graph, known, ordered)
    opsets = {normal_domain(o.domain): o.version for o in model.opset_import}
    graph_inputs = tuple(_graph_input(value) for value in inputs)
    types = infer_types(
        ordered,
        weights,
        inputs,
        declared=expansion.declared,
        opsets=opsets,
        ir_version=model.ir_version,
    )
    random = _find_random(ordered, weights)
    roles = find_roles(ordered, weights, types, random)
    return Graph(
        name=name,
        folder=folder,
        nodes=tuple(_make_nodes(ordered, roles, random)),
        inputs=graph_inputs,
        outputs=tuple(value.name for value in model.graph.output),
        weights=weights,
        types=types,
        opsets=opsets,
        ir_version=model.ir_version,
        weight_bytes=sum(weight.nbytes for weight in weights.values()),
        proto=model,
    )


def _without_constants(
    expansion: Expansion, weights: dict[str, Weight], inputs: Iterable[str], folder: DataFolder
) -> Iterator[PlacedNode]:
    """Yields the nodes; those that are constants are added to `weights` instead."""
    taken = {*weights, *inputs}
    for node in expansion.nodes:
        weight = _constant_weight(node.proto, folder)
        if weight is None:
            yield node
        elif weight.name in taken:
            raise two_producers(weight.name, node.proto)
        else:
            weights[weight.name] = weight
            taken.add(weight.name)


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


def _check_outputs(graph: onnx.GraphProto, known: set[str], nodes: Sequence[PlacedNode]) -> None:
    made = {name for node in nodes if not node.guards for name in node.proto.output} | known
    missing = [value.name for value in graph.output if value.name not in made]
    if missing or not graph.output:
        problem = f"Nothing makes these outputs of the model: {missing!r}."
        raise ModelError(
            f"{problem if missing else 'The model has no outputs.'}\n"
            f"The model is incomplete: export it again."
        )


def _find_random(nodes: Iterable[PlacedNode], weights: Mapping[str, Weight]) -> set[int]:
    flags = [(n, w) for n, w in weights.items() if w.dtype == bool and w.nbytes == 1]
    off = {name for name, weight in flags if not weight.read().any()}
    return {i for i, node in enumerate(nodes) if draws_random_numbers(node.proto, off)}


def _make_nodes(
    placed: Sequence[PlacedNode], roles: Sequence[Role], random: Collection[int]
) -> Iterator[Node]:
    names = unique_names((p.label, p.proto.op_type, p.proto.output) for p in placed)
    for index, (node, role, name) in enumerate(zip(placed, roles, names, strict=True)):
        yield Node(
            index,
            name,
            role,
            node.proto,
            node.opset,
            node.captures,
            node.guards,
            node.branches,
            node.trace,
            index in random,
        )


def _constant_weight(proto: NodeProto, folder: DataFolder) -> Weight | None:
    if proto.op_type != "Constant" or normal_domain(proto.domain) or not proto.output:
        return None
    name = proto.output[0]
    attribute = proto.attribute[0] if proto.attribute else AttributeProto()
    if attribute.name == "value":
        return locate_weight(attribute.t, name, folder)
    if attribute.name not in {"value_float", "value_floats", "value_int", "value_ints"}:
        if attribute.name == "sparse_value":
            return locate_weight(attribute.sparse_tensor, name, folder)
        return None  # text constants run as nodes
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
