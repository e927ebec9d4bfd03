"""A new model from a graph and its plan: names for both widths, casts between them, and types."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from polygraphy_layerprec.emit.mixed_onnx.bodies import rename_captured, tensors_of
from polygraphy_layerprec.emit.mixed_onnx.weights import PendingWeight, low_tensor
from polygraphy_layerprec.model.expansion import Guard
from polygraphy_layerprec.model.operators import (
    ITERATING,
    PRODUCTS,
    Behavior,
    behavior_of,
    normal_domain,
)
from polygraphy_layerprec.model.schemas import signature
from polygraphy_layerprec.model.weights import Weight, locate_weight
from polygraphy_layerprec.plan.batch_norm import (
    epsilon_of,
    fold_parameters,
    is_folded,
    parameter_names,
)
from polygraphy_layerprec.plan.operands import LOW_TENSOR_TYPES
from polygraphy_layerprec.plan.widths import NodePlan, Plan, Verdict, Width, reads_of

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph, Node

__all__ = ["PRECISION_KEY", "Rewriting"]

PRECISION_KEY: Final = "polygraphy_layerprec.precision"
"""Metadata of a mixed model: its low precision, which no tensor tells where no layer has it."""

_OPTIONAL_INPUTS_IR = 4  # before it every initializer had to be declared as a graph input
_ZERO = TensorProto(data_type=TensorProto.FLOAT, dims=[1], float_data=[0.0])


@dataclass
class Rewriting:
    """Makes one mixed-precision model, once."""

    plan: Plan
    """What becomes of each node and tensor."""

    casts: int = 0
    """Cast nodes inserted so far."""

    converted: int = 0
    """Weights converted so far."""

    pending: list[PendingWeight] = field(default_factory=list)
    """Tensors of the new model whose values are still where the old model has them."""

    _natives: dict[str, Width] = field(default_factory=dict)
    _wanted: dict[str, set[Width]] = field(default_factory=dict)
    _fenced: set[str] = field(default_factory=set)
    _names: dict[tuple[str, Width], str] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)
    _node_names: set[str] = field(default_factory=set)
    _constants: list[TensorProto] = field(default_factory=list)

    def run(self) -> ModelProto:
        """Returns the new model, its large weights still pending."""
        plan = self.plan
        self._low_type = LOW_TENSOR_TYPES[plan.precision.name]
        graph, model = plan.graph, plan.graph.proto
        self._taken.update(graph.types, graph.weights)
        self._node_names.update(node.name for node in graph.nodes)
        self._collect()
        for name in self._natives:
            self._name_versions(name)
        made = GraphProto(name=model.graph.name, doc_string=model.graph.doc_string)
        gone = self._folded_away()
        fed = self._fed() - gone
        made.input.extend(value for value in model.graph.input if value.name in fed)
        made.output.extend(model.graph.output)
        made.value_info.extend(model.graph.value_info)
        for weight in graph.weights.values():
            if weight.name not in gone:
                self._add_versions(weight, made)
        bridges = [
            node
            for value in made.input
            if value.name in self._natives
            for node in self._bridge(value.name)
        ]
        made.node.extend([*bridges, *self._scope(())])
        made.initializer.extend(self._constants)
        self._declare_types(made)
        result = _header(graph, plan.precision.name)
        result.graph.CopyFrom(made)
        self._find_pending(result)
        return result

    def _collect(self) -> None:
        """The width of every tensor where it is made, and the widths that it is read in."""
        plan, graph = self.plan, self.plan.graph
        self._natives = dict(plan.natives)
        self._wanted = {name: set() for name in self._natives}
        for node in graph.nodes:
            reads = reads_of(node, plan.of(node))
            for name, width in reads[:1] if self._is_folded(node) else reads:
                if width in (Width.FP32, Width.LOW) and name in self._wanted:
                    self._wanted[name].add(width)
        for name in graph.outputs:
            if name in self._natives:
                self._wanted[name].add(plan.io_width)
        for name, native in plan.natives.items():
            if name in self._overridable():
                self._natives[name] = plan.io_width
            elif native is Width.EITHER:
                all_low = self._wanted[name] == {Width.LOW}
                self._natives[name] = Width.LOW if all_low else Width.FP32
        self._collect_fenced()

    def _collect_fenced(self) -> None:
        """Finds the tensors that reach a loop or a product unchanged but for being moved."""
        for node in reversed(self.plan.graph.nodes):
            moves = behavior_of(node.op_type, node.domain) is not Behavior.COMPUTES
            reaches = moves and not self._fenced.isdisjoint(node.outputs)
            is_end = node.op_type in ITERATING | PRODUCTS and not self.plan.is_lowered(node)
            if reaches or is_end:
                self._fenced.update(node.sources)

    def _name_versions(self, name: str) -> None:
        graph = self.plan.graph
        at_border = name in graph.outputs or name in self._fed()
        owner = self.plan.io_width if at_border else self._natives[name]
        for width in (Width.FP32, Width.LOW):
            if width is owner:
                self._names[name, width] = name
            elif width is self._natives[name] or width in self._wanted[name]:
                suffix = "fp32" if width is Width.FP32 else self.plan.precision.name
                self._names[name, width] = _fresh(f"{name}__{suffix}", self._taken)

    def _fed(self) -> set[str]:
        """What a caller feeds, weights that a caller can override included."""
        model = self.plan.graph.proto
        names = {value.name for value in model.graph.input}
        # Very old models had to declare all their weights.
        old = model.ir_version < _OPTIONAL_INPUTS_IR
        return names - self.plan.graph.weights.keys() if old else names

    def _overridable(self) -> set[str]:
        return self._fed() & self.plan.graph.weights.keys()

    def _add_versions(self, weight: Weight, made: GraphProto) -> None:
        if weight.name not in self._natives:
            self._add_weight(weight, weight.name, weight.tensor_type, made)
            return
        # One that a caller can override is cast.
        overridable = weight.name in self._overridable()
        widths = [self.plan.io_width] if overridable else [Width.FP32, Width.LOW]
        for width in widths:
            name = self._names.get((weight.name, width))
            if name is None:
                continue
            low = width is Width.LOW
            self.converted += low
            self._add_weight(weight, name, self._low_type if low else TensorProto.FLOAT, made)

    def _add_weight(self, weight: Weight, name: str, tensor_type: int, made: GraphProto) -> None:
        made.initializer.add(name=name, data_type=tensor_type, dims=weight.shape)
        self.pending.append(PendingWeight(made.initializer[-1], weight, self.plan.precision))

    def _scope(self, guards: tuple[Guard, ...]) -> list[NodeProto]:
        """The nodes of the main graph, or of one branch, in execution order."""
        nodes = []
        for node in self._nodes_by_guards[guards]:
            nodes.append(self._rewritten(node))
            for name in node.outputs:
                if name in self._natives:
                    nodes.extend(self._bridge(name))
        return nodes

    @cached_property
    def _nodes_by_guards(self) -> Mapping[tuple[Guard, ...], list[Node]]:
        nodes: dict[tuple[Guard, ...], list[Node]] = defaultdict(list)
        for node in self.plan.graph.nodes:
            nodes[node.guards].append(node)
        return nodes

    def _is_folded(self, node: Node) -> bool:
        return self.plan.is_lowered(node) and is_folded(self.plan.graph, node)

    def _folded_away(self) -> set[str]:
        """The parameters of normalizations that become one scale and one shift."""
        graph = self.plan.graph
        return {
            name
            for node in graph.nodes
            if self._is_folded(node)
            for name in parameter_names(node)
            if name not in graph.outputs and all(map(self._is_folded, graph.consumers[name]))
        }

    def _rewritten(self, node: Node) -> NodeProto:
        plan = self.plan.of(node)
        if node.branches:
            return self._rewritten_branches(node)
        if self._is_folded(node):
            return self._rewritten_norm(node)
        made = NodeProto()
        made.CopyFrom(node.proto)
        made.name = node.name if node.path else node.proto.name
        for position, width in enumerate(plan.inputs):
            if width is not None:
                made.input[position] = self._version(node.inputs[position], width)
        for position, width in enumerate(plan.outputs):
            if width is not None:
                made.output[position] = self._version(node.outputs[position], Width.EITHER)
        around = plan.around or Width.EITHER
        captured = [name for name in node.captures if name in self._natives]
        rename_captured(made, {name: self._version(name, around) for name in captured})
        if plan.verdict is Verdict.LOWERED:
            self._retype(made, node, plan)
        return made

    def _rewritten_norm(self, node: Node) -> NodeProto:
        # Scale, shift, 0 and 1 with an epsilon of 0 parse to one SCALE, as the original would.
        graph = self.plan.graph
        first, bias, mean, variance = (graph.weights[n].read() for n in parameter_names(node))
        scale, shift = fold_parameters(first, bias, mean, variance, epsilon_of(node))
        values = (scale, shift, np.zeros_like(scale), np.ones_like(scale))
        made = NodeProto()
        made.CopyFrom(node.proto)
        made.name = node.name if node.path else node.proto.name
        made.input[0] = self._version(node.inputs[0], Width.LOW)
        made.output[0] = self._version(node.outputs[0], Width.EITHER)
        parts = ("scale", "shift", "mean", "variance")
        for position, (part, array) in enumerate(zip(parts, values, strict=True), start=1):
            name = _fresh(f"{node.outputs[0]}__{part}_{self.plan.precision.name}", self._taken)
            self._constants.append(low_tensor(array, name, self.plan.precision))
            made.input[position] = name
        _set_attribute(made, "epsilon", 0.0)
        return made

    def _rewritten_branches(self, node: Node) -> NodeProto:
        made = NodeProto(op_type="If", name=node.name if node.path else node.proto.name)
        made.input.extend(node.inputs)
        made.output.extend(self._version(name, Width.FP32) for name in node.outputs)
        bodies = {a.name: a.g for a in node.proto.attribute if a.HasField("g")}
        owner = next(filter(None, node.outputs), "")
        for attribute, value, results in zip(
            ("then_branch", "else_branch"), (True, False), node.branches, strict=True
        ):
            body = GraphProto(name=bodies[attribute].name)
            body.node.extend(self._scope((*node.guards, Guard(node.inputs[0], value, owner))))
            for declared, result in zip(bodies[attribute].output, results, strict=True):
                body.output.add().CopyFrom(declared)
                body.output[-1].name = self._version(result, Width.FP32)
                self._own_output(body, body.output[-1].name)
            made.attribute.append(helper.make_attribute(attribute, body))
        return made

    def _own_output(self, body: GraphProto, name: str) -> None:
        """A branch may hand an outer tensor on, which not every runtime lets it do directly."""
        if not any(name in node.output for node in body.node):
            target = _fresh(f"{name}__branch", self._taken)
            body.node.append(helper.make_node("Identity", [name], [target]))
            body.output[-1].name = target

    def _version(self, name: str, width: Width) -> str:
        if name not in self._natives:
            return name
        return self._names[name, self._natives[name] if width is Width.EITHER else width]

    def _retype(self, made: NodeProto, node: Node, plan: NodePlan) -> None:
        """Changes the attribute that says an output's type, where an operator has one."""
        if node.op_type == "ConstantOfShape":
            fill = next((a.t for a in node.proto.attribute if a.name == "value"), _ZERO)
            lowered = TensorProto(data_type=self._low_type, dims=fill.dims)
            weight = locate_weight(fill, "value", self.plan.graph.folder)
            PendingWeight(lowered, weight, self.plan.precision).fill_inline()
            _set_attribute(made, "value", lowered)
        elif node.op_type == "DequantizeLinear" and plan.inputs[1] is Width.FP32:
            _set_attribute(made, "output_dtype", self._low_type)

    def _bridge(self, name: str) -> list[NodeProto]:
        """Casts a tensor into its other width, right where it comes to be."""
        native = self._natives[name]
        other = Width.LOW if native is Width.FP32 else Width.FP32
        target = self._names.get((name, other))
        if target is None:
            return []
        source = self._names[name, native]
        self.casts += 1
        if other is Width.FP32 and name in self._fenced:
            return self._fenced_bridge(source, target)
        return [self._cast(source, target, other)]

    def _fenced_bridge(self, source: str, target: str) -> list[NodeProto]:
        # TensorRT-RTX 1.7.1 cannot build a loop right behind a Cast ("Mismatched number of
        # elements"), and makes one kernel in low precision of a product and the casts around it.
        # Adding -0.0 changes no value, not even the sign of a zero.
        cast = _fresh(f"{target}_cast", self._taken)
        zero = _fresh(f"{target}_zero", self._taken)
        self._constants.append(
            TensorProto(name=zero, data_type=TensorProto.FLOAT, float_data=[-0.0])
        )
        name = _fresh(target, self._node_names)
        return [
            self._cast(source, cast, Width.FP32),
            helper.make_node("Add", [cast, zero], [target], name=name),
        ]

    def _cast(self, source: str, target: str, width: Width) -> NodeProto:
        to = TensorProto.FLOAT if width is Width.FP32 else self._low_type
        name = _fresh(target, self._node_names)
        return helper.make_node("Cast", [source], [target], name=name, to=to)

    def _declare_types(self, made: GraphProto) -> None:
        for value in (*made.input, *made.output, *made.value_info):
            if self._names.get((value.name, Width.LOW)) == value.name:
                value.type.tensor_type.elem_type = self._low_type

    def _find_pending(self, model: ModelProto) -> None:
        """The tensors of the finished model, since copies of messages are other objects."""
        weights = {pending.tensor.name: pending.weight for pending in self.pending}
        precision = self.plan.precision
        self.pending = [
            PendingWeight(tensor, weights[tensor.name], precision)
            for tensor in model.graph.initializer
            if tensor.name in weights
        ]
        for node in model.graph.node:
            for tensor in tensors_of(node):
                if tensor.data_location == TensorProto.EXTERNAL:
                    weight = locate_weight(tensor, tensor.name, self.plan.graph.folder)
                    self.pending.append(PendingWeight(_emptied(tensor), weight, precision))


def _header(graph: Graph, precision: str) -> ModelProto:
    """A model that says of itself what the original does, without its graph and functions."""
    made = ModelProto()
    for descriptor, value in graph.proto.ListFields():
        if descriptor.name in {"graph", "functions", "metadata_props", "opset_import"}:
            continue
        if hasattr(value, "extend"):
            getattr(made, descriptor.name).extend(value)
        else:
            setattr(made, descriptor.name, value)
    entries = graph.proto.metadata_props
    made.metadata_props.extend(entry for entry in entries if entry.key != PRECISION_KEY)
    made.metadata_props.add(key=PRECISION_KEY, value=precision)
    made.ir_version = max(graph.ir_version, _OPTIONAL_INPUTS_IR)
    made.opset_import.extend(helper.make_opsetid(d, v) for d, v in _opsets(graph).items())
    return made


def _opsets(graph: Graph) -> dict[str, int]:
    """The operator sets that the nodes are of, once functions are expanded."""
    used = {node.domain for node in graph.nodes} | {""}
    functions = {normal_domain(function.domain) for function in graph.proto.functions}
    opsets = {d: v for d, v in graph.opsets.items() if d in used or d not in functions}
    for node in graph.nodes:
        version = opsets.setdefault(node.domain, node.opset)
        formals = signature(node.proto, node.opset)
        here = signature(node.proto, version)
        if version != node.opset and (formals is None or here is None or formals != here):
            raise ValueError(
                f"{node.name!r} is in a local function of opset {node.opset}, and the model has "
                f"opset {version}, where {node.op_type} is another operator"
            )
    return opsets


def _emptied(tensor: TensorProto) -> TensorProto:
    tensor.ClearField("data_location")
    tensor.ClearField("external_data")
    return tensor


def _fresh(name: str, taken: set[str]) -> str:
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate


def _set_attribute(node: NodeProto, name: str, value: TensorProto | float) -> None:
    replaced = {name, "value_float", "value_floats"}
    kept: Sequence[AttributeProto] = [a for a in node.attribute if a.name not in replaced]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
