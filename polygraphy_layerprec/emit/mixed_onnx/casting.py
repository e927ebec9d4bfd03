"""Rewriting a graph to its plan: names for both precisions, casts between them, and types."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from polygraphy_layerprec.emit.mixed_onnx.operators import FOLLOWERS, LOOPS
from polygraphy_layerprec.emit.mixed_onnx.plan import NodePlan, Verdict, Width
from polygraphy_layerprec.emit.mixed_onnx.scopes import defined_names, rename_captured
from polygraphy_layerprec.emit.mixed_onnx.weights import low_tensor_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from polygraphy_layerprec.emit.mixed_onnx.detached import TensorStore
    from polygraphy_layerprec.emit.mixed_onnx.graph_view import GraphView
    from polygraphy_layerprec.precision import Precision

__all__ = ["Rewriting"]


@dataclass
class Rewriting:
    """Rewrites the main graph of one model in place, once."""

    model: ModelProto
    """The model, its weights stubs where they are large."""

    view: GraphView
    """Its main graph before the rewriting."""

    plans: Sequence[NodePlan]
    """The plan of every node of the view."""

    precision: Precision
    """The low precision."""

    io_width: Width
    """The precision of the graph's float inputs and outputs."""

    store: TensorStore
    """Makes the stubs of converted weights."""

    casts: int = 0
    """Cast nodes inserted so far."""

    converted: int = 0
    """Weights converted so far."""

    _natives: dict[str, Width] = field(default_factory=dict)
    _wanted: dict[str, set[Width]] = field(default_factory=dict)
    _looped: set[str] = field(default_factory=set)
    _names: dict[tuple[str, Width], str] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)
    _nodes: list[NodeProto] = field(default_factory=list)

    def run(self) -> None:
        """Rewrites nodes, weights and declared types."""
        self._taken.update(defined_names(self.model.graph))
        self._taken.update(node.name for node in self.view.nodes)
        self._collect()
        self._collect_looped()
        for name in self._natives:
            self._name_versions(name)
        self._convert_initializers()
        for value in self.model.graph.input:
            if value.name in self._natives and value.name not in self.view.constants:
                self._bridge(value.name)
        for sparse in self.model.graph.sparse_initializer:
            self._bridge(sparse.values.name)
        for index, node in enumerate(self.view.nodes):
            self._rewrite_node(index, node)
        self._declare_types()
        del self.model.graph.node[:]
        self.model.graph.node.extend(self._nodes)

    def _collect(self) -> None:
        view = self.view
        floats = [name for name in self._defined() if view.is_float(name)]
        self._natives = dict.fromkeys(floats, Width.FP32)
        self._wanted = {name: set() for name in floats}
        for index, (node, plan) in enumerate(zip(view.nodes, self.plans, strict=True)):
            for name, width in zip(node.output, plan.outputs, strict=True):
                if width is not None:
                    self._natives[name] = width
                if plan.verdict is Verdict.KEPT and name in view.constants:
                    self._want(name, width)
            for name, width in zip(node.input, plan.inputs, strict=True):
                self._want(name, width)
            for name in view.captured[index]:
                self._want(name, Width.FP32 if view.is_float(name) else None)
        for name in view.inputs & self._natives.keys():
            self._natives[name] = self.io_width
        for name in view.outputs & self._natives.keys():
            self._wanted[name].add(self.io_width)
        for name in view.constants.keys() & self._natives.keys():
            all_low = self._wanted[name] == {Width.LOW}
            self._natives[name] = Width.LOW if all_low else Width.FP32

    def _defined(self) -> Iterable[str]:
        graph = self.model.graph
        yield from (value.name for value in graph.input)
        yield from (tensor.name for tensor in graph.initializer)
        yield from (sparse.values.name for sparse in graph.sparse_initializer)
        for node in graph.node:
            yield from (name for name in node.output if name)

    def _want(self, name: str, width: Width | None) -> None:
        if width in (Width.FP32, Width.LOW):
            self._wanted[name].add(width)

    def _collect_looped(self) -> None:
        """Finds the tensors that reach a loop unchanged but for being moved."""
        view = self.view
        for index in reversed(range(len(view.nodes))):
            node = view.nodes[index]
            moves = node.op_type in FOLLOWERS and not self._looped.isdisjoint(node.output)
            if moves or node.op_type in LOOPS:
                self._looped.update(node.input, view.captured[index])

    def _name_versions(self, name: str) -> None:
        at_border = name in self.view.inputs or name in self.view.outputs
        owner = self.io_width if at_border else self._natives[name]
        for width in (Width.FP32, Width.LOW):
            if width is owner:
                self._names[name, width] = name
            elif width is self._natives[name] or width in self._wanted[name]:
                suffix = "fp32" if width is Width.FP32 else self.precision.name
                self._names[name, width] = self._fresh(f"{name}__{suffix}")

    def _fresh(self, name: str) -> str:
        candidate, count = name, 1
        while candidate in self._taken:
            count += 1
            candidate = f"{name}_{count}"
        self._taken.add(candidate)
        return candidate

    def _convert_initializers(self) -> None:
        tensors = []
        for tensor in self.model.graph.initializer:
            if tensor.name in self._natives:
                tensors.extend(self._versions(tensor))
            else:
                tensors.append(tensor)
        for name, tensor in self.view.constants.items():
            if name in self.view.producers and name in self._natives:
                native = self._names[name, self._natives[name]]
                tensors.extend(t for t in self._versions(tensor, name) if t.name != native)
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(tensors)

    def _versions(self, tensor: TensorProto, name: str = "") -> list[TensorProto]:
        """Returns the tensor in each precision that has a name; one at least has."""
        name = name or tensor.name
        versions = []
        if name in self.view.inputs:  # a default that a caller can override: casts do the rest
            widths: tuple[Width, ...] = (self.io_width,)
        else:
            widths = (Width.FP32, Width.LOW)
        for width in widths:
            new_name = self._names.get((name, width))
            if new_name is not None and width is Width.LOW:
                versions.append(self._lowered(tensor, new_name))
            elif new_name is not None:
                versions.append(TensorProto())
                versions[-1].CopyFrom(tensor)
                versions[-1].name = new_name
        return versions

    def _lowered(self, tensor: TensorProto, name: str) -> TensorProto:
        self.converted += 1
        return self.store.stub(tensor, name=name, tensor_type=low_tensor_type(self.precision))

    def _rewrite_node(self, index: int, node: NodeProto) -> None:
        plan = self.plans[index]
        rewritten = NodeProto()
        rewritten.CopyFrom(node)
        for position, width in enumerate(plan.inputs):
            if width is not None:
                rewritten.input[position] = self._version(node.input[position], width)
        for position, width in enumerate(plan.outputs):
            if width is not None:
                native = self._natives[node.output[position]]
                rewritten.output[position] = self._names[node.output[position], native]
        captured = {n for n in self.view.captured[index] if n in self._natives}
        rename_captured(rewritten, {n: self._version(n, Width.FP32) for n in captured})
        self._retype(rewritten, node, plan)
        self._nodes.append(rewritten)
        for name in node.output:
            if name in self._natives and name not in self.view.constants:
                self._bridge(name)

    def _version(self, name: str, width: Width) -> str:
        return self._names[name, self._natives[name] if width is Width.EITHER else width]

    def _retype(self, rewritten: NodeProto, node: NodeProto, plan: NodePlan) -> None:
        """Changes the attribute that says an output's type, where an operator has one."""
        low_type = low_tensor_type(self.precision)
        if node.op_type == "Constant" and self._natives.get(node.output[0]) is Width.LOW:
            value = self._lowered(self.view.constants[node.output[0]], "")
            _set_attribute(rewritten, "value", value)
        elif plan.verdict is not Verdict.LOWERED:
            return
        elif node.op_type == "ConstantOfShape":
            fill = next((a.t for a in node.attribute if a.name == "value"), _ZERO)
            _set_attribute(rewritten, "value", self._lowered(fill, ""))
        elif node.op_type == "DequantizeLinear" and plan.inputs[1] is Width.FP32:
            _set_attribute(rewritten, "output_dtype", low_type)

    def _bridge(self, name: str) -> None:
        """Casts a tensor into its other precision, right where it comes to be."""
        native = self._natives[name]
        other = Width.LOW if native is Width.FP32 else Width.FP32
        target = self._names.get((name, other))
        if target is None:
            return
        source = self._names[name, native]
        self.casts += 1
        if other is Width.FP32 and name in self._looped:
            self._bridge_to_loop(source, target)
            return
        wide = other is Width.FP32
        low_type = low_tensor_type(self.precision)
        self._nodes.append(_cast(source, target, TensorProto.FLOAT if wide else low_type))

    def _bridge_to_loop(self, source: str, target: str) -> None:
        # TensorRT-RTX 1.7.1 cannot build a loop right behind a Cast ("Mismatched number of
        # elements"). Adding -0.0 changes no value, not even the sign of a zero.
        cast, zero = self._fresh(f"{target}_cast"), self._fresh(f"{target}_zero")
        self.model.graph.initializer.append(
            TensorProto(name=zero, data_type=TensorProto.FLOAT, float_data=[-0.0])
        )
        self._nodes.append(_cast(source, cast, TensorProto.FLOAT))
        self._nodes.append(helper.make_node("Add", [cast, zero], [target], name=target))

    def _declare_types(self) -> None:
        graph = self.model.graph
        low_type = low_tensor_type(self.precision)
        values: list[ValueInfoProto] = [*graph.input, *graph.output, *graph.value_info]
        for value in values:
            if self._names.get((value.name, Width.LOW)) == value.name:
                value.type.tensor_type.elem_type = low_type


_ZERO = TensorProto(data_type=TensorProto.FLOAT, dims=[1], float_data=[0.0])


def _cast(source: str, target: str, tensor_type: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=target, to=tensor_type)


def _set_attribute(node: NodeProto, name: str, value: TensorProto | int) -> None:
    replaced = {name, "value_float", "value_floats"}
    kept: list[AttributeProto] = [a for a in node.attribute if a.name not in replaced]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
