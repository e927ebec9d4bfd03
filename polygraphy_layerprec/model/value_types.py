"""Element type and shape of every value of a flat graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    helper,
    shape_inference,
)

from polygraphy_layerprec.model.element_types import (
    UNKNOWN_TYPE,
    ValueType,
    type_of_runtime_name,
    value_type,
)
from polygraphy_layerprec.model.memory_limit import limited_growth
from polygraphy_layerprec.model.operators import normal_domain
from polygraphy_layerprec.model.runtime_types import output_types
from polygraphy_layerprec.model.schemas import bound_variables, signature

if TYPE_CHECKING:
    from polygraphy_layerprec.model.expansion import PlacedNode
    from polygraphy_layerprec.model.weights import Weight

__all__ = ["infer_types"]

_FIRST: Final = "/results/first"
_MOST_VALUES_KNOWN: Final = 256  # shapes, axes and scales: inference wants their values
_LARGEST_GROWTH_BYTES: Final = 2 << 30


def infer_types(
    nodes: Sequence[PlacedNode],
    weights: Mapping[str, Weight],
    inputs: Iterable[ValueInfoProto],
    *,
    declared: Mapping[str, TypeProto],
    opsets: Mapping[str, int],
    ir_version: int,
) -> dict[str, ValueType]:
    """Returns the type of every value that a node, an input or a weight gives.

    ONNX's shape inference tells most, schemas tell types that it leaves open, and what neither
    knows, such as the operators that ONNX-Runtime adds, ONNX-Runtime is asked.

    Args:
        nodes: The nodes, sorted.
        weights: Constants by tensor name.
        inputs: What a user feeds.
        declared: Types that the file declares, by tensor name.
        opsets: Operator-set version by domain.
        ir_version: Version of the ONNX file format.
    """
    known = {name: value_type(kind) for name, kind in declared.items()}
    known.update((value.name, value_type(value.type)) for value in inputs)
    known.update((w.name, ValueType(w.tensor_type, w.shape)) for w in weights.values())
    model = _typing_model(nodes, weights, inputs, declared, opsets, ir_version)
    types = _merged(known, _inferred(model))
    asked = _complete(nodes, types, opsets)
    if asked:  # what follows from these, shapes as well
        model.graph.value_info.extend(_value_infos(asked, types))
        types = _merged(types, _inferred(model))
        _complete(nodes, types, opsets)
    return types


def _typing_model(
    nodes: Sequence[PlacedNode],
    weights: Mapping[str, Weight],
    inputs: Iterable[ValueInfoProto],
    declared: Mapping[str, TypeProto],
    opsets: Mapping[str, int],
    ir_version: int,
) -> ModelProto:
    """The flat graph without large weights, which inference needs the types of alone."""
    graph = helper.make_graph([], "types", list(inputs), [])
    graph.initializer.add(name=_FIRST, data_type=TensorProto.INT64, int64_data=[0])
    for weight in weights.values():
        if weight.path is None and weight.element_count <= _MOST_VALUES_KNOWN:
            graph.initializer.append(weight.tensor)
            graph.initializer[-1].name = weight.name
        else:
            shape = weight.shape
            graph.input.append(
                helper.make_tensor_value_info(weight.name, weight.tensor_type, shape)
            )
    fed = {value.name for value in graph.input}
    made = {name for node in nodes for name in node.proto.output}
    for name, kind in declared.items():
        if name in made and name not in fed:
            graph.value_info.append(ValueInfoProto(name=name, type=kind))
    for node in nodes:
        # One model has one version of each operator set.
        if opsets.get(normal_domain(node.proto.domain), 1) == node.opset:
            graph.node.extend(_typing_nodes(node))
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def _typing_nodes(node: PlacedNode) -> Iterator[NodeProto]:
    if not node.branches:
        yield node.proto
        return
    # What an `If` gives has the type that the tensors of a sequence have in common. An `If` itself
    # would do, but inference copies all that is known so far for every body.
    for given in zip(node.proto.output, *node.branches, strict=False):
        output, *results = given
        sequence = f"{output}/results"
        yield NodeProto(op_type="SequenceConstruct", input=results, output=[sequence])
        yield NodeProto(op_type="SequenceAt", input=[sequence, _FIRST], output=[output])


def _inferred(model: ModelProto) -> dict[str, ValueType]:
    # With the values of shapes, inference makes an object of each element of what might be one:
    # a vector of a billion elements takes all memory. Without, no shape is computed.
    for data_prop in (True, False):
        try:
            with limited_growth(_LARGEST_GROWTH_BYTES):
                graph = shape_inference.infer_shapes(model, data_prop=data_prop).graph
        except MemoryError:
            continue
        # What the schemas alone say is less, but never wrong. Damaged models raise all of these.
        except (shape_inference.InferenceError, RuntimeError, ValueError):
            return {}
        values: Iterable[ValueInfoProto] = (*graph.value_info, *graph.output)
        return {value.name: value_type(value.type) for value in values}
    return {}


def _merged(
    known: Mapping[str, ValueType], further: Mapping[str, ValueType]
) -> dict[str, ValueType]:
    types = dict(known)
    for name, found in further.items():
        before = types.get(name)
        same = before is not None and found.element_type == before.element_type
        if before is None or not before.is_known or (same and before.shape is None):
            types[name] = found
    return types


def _complete(
    nodes: Sequence[PlacedNode],
    types: dict[str, ValueType],
    opsets: Mapping[str, int],
) -> list[str]:
    """Finds the types that inference left open; returns those that ONNX-Runtime told."""
    asked = []
    for node in nodes:
        if not _open_outputs(node, types):
            continue
        if node.branches:
            _take_from_branches(node, types)
            continue
        _complete_by_schema(node, types)
        still_open = _open_outputs(node, types)
        if still_open and all(_is_known(name, types) for name in node.sources):
            told = output_types(
                node.proto,
                node.sources,
                types,
                opsets={**opsets, normal_domain(node.proto.domain): node.opset},
            )
            types.update((name, told[name]) for name in still_open if name in told)
            asked += [name for name in still_open if name in told]
    for name in (name for node in nodes for name in node.proto.output if name):
        types.setdefault(name, ValueType(UNKNOWN_TYPE))
    return asked


def _open_outputs(node: PlacedNode, types: Mapping[str, ValueType]) -> list[str]:
    return [name for name in node.proto.output if name and not _is_known(name, types)]


def _is_known(name: str, types: Mapping[str, ValueType]) -> bool:
    return name in types and types[name].is_known


def _take_from_branches(node: PlacedNode, types: dict[str, ValueType]) -> None:
    for results in node.branches:
        for name, result in zip(node.proto.output, results, strict=False):
            if not _is_known(name, types) and _is_known(result, types):
                types[name] = ValueType(types[result].element_type)


def _complete_by_schema(node: PlacedNode, types: dict[str, ValueType]) -> None:
    """Names types from the operator's own constraints.

    GroupNormalization of opset 21 is such a case, and so is whatever reads the output of an
    operator without a schema: its other operands tell the type.
    """
    proto = node.proto
    formals = signature(proto, node.opset)
    if formals is None:
        return
    operands = {
        name: types[name].element_type
        for name in (*proto.input, *proto.output)
        if _is_known(name, types)
    }
    bound = bound_variables(proto, formals, operands)
    for name, formal in zip(proto.output, formals.outputs, strict=True):
        found = bound.get(formal.variable, set())
        if not name or name in operands:
            continue
        if len(found) == 1:
            types[name] = ValueType(found.pop())
        elif len(formal.allowed) == 1:
            types[name] = value_type(type_of_runtime_name(next(iter(formal.allowed))))


def _value_infos(names: Iterable[str], types: Mapping[str, ValueType]) -> Iterator[ValueInfoProto]:
    for name in names:
        if types[name].element_type > UNKNOWN_TYPE:
            yield helper.make_tensor_value_info(name, types[name].element_type, types[name].shape)
