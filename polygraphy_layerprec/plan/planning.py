"""From a graph and the layers to keep to a width for every tensor.

Layers are lowered unless they are kept or something objects. Nodes that round nothing follow: they
are lowered when everything variable that they read is in the low precision, or when all that
becomes of their output is rounded anyway: the order of rounding and moving is free then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from polygraphy_layerprec.model import Role
from polygraphy_layerprec.model.operators import JUMPING, Behavior, behavior_of
from polygraphy_layerprec.plan.kept_layers import KeptLayers
from polygraphy_layerprec.plan.objections import objection_to
from polygraphy_layerprec.plan.operands import LowOperands, network_operands, schema_operands
from polygraphy_layerprec.plan.widths import NodePlan, Plan, Target, Verdict, Width, reads_of

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.precision import Precision

__all__ = ["Planner"]

_NO_OPERANDS = LowOperands(frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class _Judged:
    """What may become of a node, whatever its neighbours are."""

    verdict: Verdict
    reason: str = ""
    operands: LowOperands = _NO_OPERANDS
    deviation: str = ""


class Planner:
    """Makes the plans of one graph for one target.

    What does not depend on the layers to keep is found once.
    """

    def __init__(
        self,
        graph: Graph,
        precision: Precision,
        target: Target = Target.STRONG,
        *,
        io_width: Width = Width.FP32,
        schema_opset: int | None = None,
    ) -> None:
        """Judges every node.

        Args:
            graph: The graph.
            precision: The low precision.
            target: Whom the plans are for.
            io_width: Width of the FP32 inputs and outputs of the model.
            schema_opset: For the target `onnx`, the opset whose schemas say what can be lowered,
                where it is newer than that of the graph, which is by default.
        """
        self._schema_opset = schema_opset or 0
        self._graph = graph
        self._precision = precision
        self._target = target
        self._io_width = io_width
        self._judged = {node.index: self._judge(node) for node in graph.nodes}
        self._limited: dict[int, bool] = {}

    def plan(self, kept: KeptLayers = KeptLayers()) -> Plan:  # noqa: B008 - it is immutable
        """Returns the plan that keeps these layers in FP32."""
        graph = self._graph
        verdicts = {
            node.index: _Judged(Verdict.KEPT)
            if self._is_kept(node, kept)
            else self._judged[node.index]
            for node in graph.nodes
        }
        self._resolve_followers(verdicts)
        nodes = tuple(self._node_plan(node, verdicts[node.index]) for node in graph.nodes)
        natives = self._natives(nodes)
        return Plan(
            graph=graph,
            target=self._target,
            precision=self._precision,
            kept=kept,
            nodes=nodes,
            natives=natives,
            casts=frozenset(self._casts(nodes, natives)),
            io_width=self._io_width,
        )

    def _is_kept(self, node: Node, kept: KeptLayers) -> bool:
        return node in kept and any(self._graph.is_fp32(name) for name in node.outputs)

    def _judge(self, node: Node) -> _Judged:
        graph = self._graph
        if not any(graph.is_fp32(name) for name in (*node.sources, *node.outputs)):
            return _Judged(Verdict.UNTOUCHED, _double_reason(graph, node))
        if node.branches:
            return _Judged(Verdict.FOLLOWS)
        behavior = behavior_of(node.op_type, node.domain)
        if behavior is Behavior.READS and node.op_type != "CastLike":
            return _Judged(Verdict.UNTOUCHED)
        if node.is_constant and not (self._target is Target.ONNX and _adapts(node)):
            return _Judged(Verdict.FOLLOWS)
        return self._judge_lowering(node)

    def _judge_lowering(self, node: Node) -> _Judged:
        graph = self._graph
        for_onnx = self._target is Target.ONNX
        operands = (
            schema_operands(graph, node, self._precision, self._opset_of(node))
            if for_onnx
            else network_operands(graph, node)
        )
        opset = self._opset_of(node)
        objection = objection_to(graph, node, self._precision, self._target, operands, opset)
        if not objection and node.role is Role.APART:
            return _Judged(Verdict.LEFT, _double_reason(graph, node))
        if objection:
            told = for_onnx or node.role is not Role.EXACT
            return _Judged(Verdict.LEFT, objection if told else "")
        deviation = _deviation(graph, node, operands) if for_onnx else ""
        return _Judged(Verdict.LOWERED, "", operands, deviation)

    def _opset_of(self, node: Node) -> int:
        return node.opset if node.domain else max(node.opset, self._schema_opset)

    def _resolve_followers(self, verdicts: dict[int, _Judged]) -> None:
        """Settles the nodes that round nothing."""
        open_nodes = self._follow_inputs(verdicts)
        if self._target is Target.WEAK:
            return  # nothing keeps a builder from lowering what moves values between kept layers
        for node in reversed(open_nodes):
            wishes = {wish for name in node.outputs for wish in self._wishes(name, verdicts)}
            if Width.LOW not in wishes or Width.FP32 in wishes:
                verdicts[node.index] = _Judged(Verdict.FOLLOWS)

    def _follow_inputs(self, verdicts: dict[int, _Judged]) -> list[Node]:
        """Settles the followers that their inputs decide about; returns the others."""
        graph = self._graph
        widths: dict[str, Width] = {value.name: self._io_width for value in graph.inputs}
        widths.update(dict.fromkeys(graph.weights, Width.EITHER))
        open_nodes = []
        for node in graph.nodes:
            index = node.index
            width = Width.LOW if verdicts[index].verdict is Verdict.LOWERED else Width.FP32
            if node.is_constant:
                width = Width.EITHER
                if verdicts[index].verdict is Verdict.LOWERED:
                    open_nodes.append(node)
            elif verdicts[index].verdict is Verdict.LOWERED and not node.is_layer:
                width = _common_width(widths.get(n, Width.FP32) for n in self._fp32(node.inputs))
                if width is Width.LOW and self._moves_beyond_range(node):
                    width = Width.FP32
                jumps = node.op_type in JUMPING and not node.domain and width is Width.FP32
                if width is not Width.LOW and self._fp32(node.outputs) and not jumps:
                    open_nodes.append(node)
                elif width is not Width.LOW:
                    verdicts[index] = _Judged(Verdict.FOLLOWS)
            widths.update(dict.fromkeys(node.outputs, width))
        return open_nodes

    def _wishes(self, name: str, verdicts: Mapping[int, _Judged]) -> Iterable[Width]:
        graph = self._graph
        if not graph.is_fp32(name):
            return
        if name in graph.outputs:
            yield self._io_width
        for consumer in graph.consumers.get(name, ()):
            plan = self._node_plan(consumer, verdicts[consumer.index])
            for read, width in reads_of(consumer, plan):
                if read == name:
                    yield width or Width.EITHER

    def _moves_beyond_range(self, node: Node) -> bool:
        """Whether a constant that the node moves among other values does not fit the precision."""
        if node.index not in self._limited:
            self._limited[node.index] = self._reads_beyond_range(node)
        return self._limited[node.index]

    def _reads_beyond_range(self, node: Node) -> bool:
        graph = self._graph
        names = list(dict.fromkeys(node.inputs))
        for name in names:  # grows on the way
            weight, producer = graph.weights.get(name), graph.producers.get(name)
            if weight is not None and graph.is_fp32(name):
                magnitudes = np.abs(weight.read())
                if np.any(np.isfinite(magnitudes) & (magnitudes > self._precision.max_finite)):
                    return True
            elif producer is not None and producer.role is Role.FOLDED:
                names += [source for source in producer.inputs if source not in names]
        return False

    def _node_plan(self, node: Node, judged: _Judged) -> NodePlan:
        low = judged.verdict is Verdict.LOWERED

        def width(name: str, position: int, positions: frozenset[int]) -> Width | None:
            if not self._graph.is_fp32(name):
                return None
            return Width.LOW if low and position in positions else Width.FP32

        either = judged.verdict is Verdict.UNTOUCHED
        inputs = [width(n, i, judged.operands.inputs) for i, n in enumerate(node.inputs)]
        outputs = [width(n, i, judged.operands.outputs) for i, n in enumerate(node.outputs)]
        return NodePlan(
            judged.verdict,
            judged.reason,
            tuple(w and Width.EITHER for w in inputs) if either else tuple(inputs),
            tuple(outputs),
            _width_around(node, judged),
            judged.deviation,
        )

    def _natives(self, nodes: Sequence[NodePlan]) -> dict[str, Width]:
        graph = self._graph
        natives = {v.name: self._io_width for v in graph.inputs if graph.is_fp32(v.name)}
        natives.update((name, Width.EITHER) for name in graph.weights if graph.is_fp32(name))
        for node, plan in zip(graph.nodes, nodes, strict=True):
            # A builder converts what it folds to whatever type is wanted.
            either = node.is_constant and self._target is not Target.ONNX
            widths = [w and Width.EITHER for w in plan.outputs] if either else plan.outputs
            made = zip(node.outputs, widths, strict=True)
            natives.update((name, width) for name, width in made if name and width is not None)
        return natives

    def _casts(
        self, nodes: Sequence[NodePlan], natives: dict[str, Width]
    ) -> Iterable[tuple[str, Width]]:
        graph = self._graph
        for node, plan in zip(graph.nodes, nodes, strict=True):
            for name, width in reads_of(node, plan):
                native = natives.get(name, width)
                if Width.EITHER not in (native, width) and width not in (None, native):
                    yield name, width
        for name in graph.outputs:
            if natives.get(name, self._io_width) is not self._io_width:
                yield name, self._io_width

    def _fp32(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self._graph.is_fp32(name)]


def _deviation(graph: Graph, node: Node, operands: LowOperands) -> str:
    """How a lowered node of a saved model reads other values than a network's does, in words."""
    low = network_operands(graph, node).inputs
    rounded = [node.inputs[i] for i in sorted(operands.inputs - low)]
    exact = [node.inputs[i] for i in sorted(low - operands.inputs)]
    told = [f"{name!a} is rounded, which a network reads as it is" for name in rounded]
    told += [f"{name!a} stays in FP32, which a network rounds" for name in exact]
    return "; ".join(told)


def _double_reason(graph: Graph, node: Node) -> str:
    made = {graph.element_type(name) for name in node.outputs if name}
    computes = behavior_of(node.op_type, node.domain) is Behavior.COMPUTES
    return "it computes in DOUBLE" if computes and TensorProto.DOUBLE in made else ""


def _adapts(node: Node) -> bool:
    """Whether a node that depends on constants alone may hand on either precision.

    Any other is computed once, in FP32, before the model runs: lowered, it would round what FP32
    layers read, and round more than once what the others read.
    """
    behavior = behavior_of(node.op_type, node.domain)
    return behavior is not Behavior.COMPUTES or node.op_type == "DequantizeLinear"


def _common_width(widths: Iterable[Width]) -> Width:
    found = set(widths) - {Width.EITHER}
    if not found:
        return Width.EITHER
    return Width.LOW if found == {Width.LOW} else Width.FP32


def _width_around(node: Node, judged: _Judged) -> Width | None:
    """How bodies read what is around them: each of a lowered body's layers rounds for itself."""
    if node.branches:
        return Width.FP32
    if not node.captures:
        return None
    return Width.EITHER if judged.verdict in (Verdict.LOWERED, Verdict.UNTOUCHED) else Width.FP32
