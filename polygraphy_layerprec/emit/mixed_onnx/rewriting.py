"""A new model from a graph and its plan: names for both widths, casts between them, and types."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from polygraphy_layerprec.emit.mixed_onnx.bodies import rename_captured, tensors_of
from polygraphy_layerprec.emit.mixed_onnx.header import header_of
from polygraphy_layerprec.emit.mixed_onnx.tensor_versions import (
    TensorVersions,
    is_folded_in,
)
from polygraphy_layerprec.emit.mixed_onnx.weights import PendingWeight, low_tensor
from polygraphy_layerprec.model.names import FreshNames
from polygraphy_layerprec.model.scopes import Guard
from polygraphy_layerprec.model.weights import Weight, locate_weight
from polygraphy_layerprec.plan.batch_norm import (
    epsilon_of,
    fold_parameters,
    parameter_names,
)
from polygraphy_layerprec.plan.operands import LOW_TENSOR_TYPES
from polygraphy_layerprec.plan.widths import NodePlan, Plan, Verdict, Width

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Node

__all__ = ["Rewriting"]

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

    _constants: list[TensorProto] = field(default_factory=list)

    def run(self) -> ModelProto:
        """Returns the new model, its large weights still pending."""
        plan = self.plan
        self._low_type = LOW_TENSOR_TYPES[plan.precision.name]
        graph, model = plan.graph, plan.graph.proto
        self._node_names = FreshNames(node.name for node in graph.nodes)
        self._versions = TensorVersions(plan)
        made = GraphProto(name=model.graph.name, doc_string=model.graph.doc_string)
        gone = self._folded_away()
        fed = self._versions.fed - gone
        made.input.extend(value for value in model.graph.input if value.name in fed)
        made.output.extend(model.graph.output)
        made.value_info.extend(model.graph.value_info)
        for weight in graph.weights.values():
            if weight.name not in gone:
                self._add_versions(weight, made)
        bridges = [
            node
            for value in made.input
            if value.name in self._versions.natives
            for node in self._bridge(value.name)
        ]
        made.node.extend([*bridges, *self._scope(())])
        made.initializer.extend(self._constants)
        self._declare_types(made)
        result = header_of(graph, plan.precision.name)
        result.graph.CopyFrom(made)
        self._find_pending(result)
        return result

    def _add_versions(self, weight: Weight, made: GraphProto) -> None:
        if weight.name not in self._versions.natives:
            self._add_weight(weight, weight.name, weight.tensor_type, made)
            return
        # One that a caller can override is cast.
        overridable = weight.name in self._versions.overridable
        widths = [self.plan.io_width] if overridable else [Width.FP32, Width.LOW]
        for width in widths:
            name = self._versions.names.get((weight.name, width))
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
                if name in self._versions.natives:
                    nodes.extend(self._bridge(name))
        return nodes

    @cached_property
    def _nodes_by_guards(self) -> Mapping[tuple[Guard, ...], list[Node]]:
        nodes: dict[tuple[Guard, ...], list[Node]] = defaultdict(list)
        for node in self.plan.graph.nodes:
            nodes[node.guards].append(node)
        return nodes

    def _folded_away(self) -> set[str]:
        """The parameters of normalizations that become one scale and one shift."""
        graph = self.plan.graph
        return {
            name
            for node in graph.nodes
            if is_folded_in(self.plan, node)
            for name in parameter_names(node)
            if name not in graph.outputs
            and all(is_folded_in(self.plan, reader) for reader in graph.consumers[name])
        }

    def _rewritten(self, node: Node) -> NodeProto:
        plan = self.plan.of(node)
        if node.branches:
            return self._rewritten_branches(node)
        if is_folded_in(self.plan, node):
            return self._rewritten_norm(node)
        made = NodeProto()
        made.CopyFrom(node.proto)
        made.name = node.name if node.path else node.proto.name
        for position, width in enumerate(plan.inputs):
            if width is not None:
                made.input[position] = self._versions.of(node.inputs[position], width)
        for position, width in enumerate(plan.outputs):
            if width is not None:
                made.output[position] = self._versions.of(node.outputs[position], Width.EITHER)
        around = plan.around or Width.EITHER
        captured = [name for name in node.captures if name in self._versions.natives]
        rename_captured(made, {name: self._versions.of(name, around) for name in captured})
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
        made.input[0] = self._versions.of(node.inputs[0], Width.LOW)
        made.output[0] = self._versions.of(node.outputs[0], Width.EITHER)
        parts = ("scale", "shift", "mean", "variance")
        for position, (part, array) in enumerate(zip(parts, values, strict=True), start=1):
            name = self._versions.fresh(f"{node.outputs[0]}__{part}_{self.plan.precision.name}")
            self._constants.append(low_tensor(array, name, self.plan.precision))
            made.input[position] = name
        _set_attribute(made, "epsilon", 0.0)
        return made

    def _rewritten_branches(self, node: Node) -> NodeProto:
        made = NodeProto(op_type="If", name=node.name if node.path else node.proto.name)
        made.input.extend(node.inputs)
        made.output.extend(self._versions.of(name, Width.FP32) for name in node.outputs)
        bodies = {a.name: a.g for a in node.proto.attribute if a.HasField("g")}
        owner = next(filter(None, node.outputs), "")
        for attribute, value, results in zip(
            ("then_branch", "else_branch"), (True, False), node.branches, strict=True
        ):
            body = GraphProto(name=bodies[attribute].name)
            body.node.extend(self._scope((*node.guards, Guard(node.inputs[0], value, owner))))
            for declared, result in zip(bodies[attribute].output, results, strict=True):
                body.output.add().CopyFrom(declared)
                body.output[-1].name = self._versions.of(result, Width.FP32)
                self._own_output(body, body.output[-1].name)
            made.attribute.append(helper.make_attribute(attribute, body))
        return made

    def _own_output(self, body: GraphProto, name: str) -> None:
        """A branch may hand an outer tensor on, which not every runtime lets it do directly."""
        if not any(name in node.output for node in body.node):
            target = self._versions.fresh(f"{name}__branch")
            body.node.append(helper.make_node("Identity", [name], [target]))
            body.output[-1].name = target

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
        native = self._versions.natives[name]
        other = Width.LOW if native is Width.FP32 else Width.FP32
        target = self._versions.names.get((name, other))
        if target is None:
            return []
        source = self._versions.names[name, native]
        self.casts += 1
        if other is Width.FP32 and name in self._versions.fenced:
            return self._fenced_bridge(source, target)
        return [self._cast(source, target, other)]

    def _fenced_bridge(self, source: str, target: str) -> list[NodeProto]:
        # TensorRT-RTX 1.7.1 cannot build a loop right behind a Cast ("Mismatched number of
        # elements"), and makes one kernel in low precision of a product and the casts around it.
        # Adding -0.0 changes no value, not even the sign of a zero.
        cast = self._versions.fresh(f"{target}_cast")
        zero = self._versions.fresh(f"{target}_zero")
        self._constants.append(
            TensorProto(name=zero, data_type=TensorProto.FLOAT, float_data=[-0.0])
        )
        name = self._node_names.make(target)
        return [
            self._cast(source, cast, Width.FP32),
            helper.make_node("Add", [cast, zero], [target], name=name),
        ]

    def _cast(self, source: str, target: str, width: Width) -> NodeProto:
        to = TensorProto.FLOAT if width is Width.FP32 else self._low_type
        name = self._node_names.make(target)
        return helper.make_node("Cast", [source], [target], name=name, to=to)

    def _declare_types(self, made: GraphProto) -> None:
        for value in (*made.input, *made.output, *made.value_info):
            if self._versions.names.get((value.name, Width.LOW)) == value.name:
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


def _emptied(tensor: TensorProto) -> TensorProto:
    tensor.ClearField("data_location")
    tensor.ClearField("external_data")
    return tensor


def _set_attribute(node: NodeProto, name: str, value: TensorProto | float) -> None:
    replaced = {name, "value_float", "value_floats"}
    kept: Sequence[AttributeProto] = [a for a in node.attribute if a.name not in replaced]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
