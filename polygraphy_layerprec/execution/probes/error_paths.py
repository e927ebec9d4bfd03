"""Which tensors errors reach, and how: as gradients, or only by what they decide.

Floats carry errors, and so do integers that stand for floats: what QuantizeLinear makes and what
is computed of it. Other integers are decided by floats: the class of an ArgMax, the index that a
Cast makes, a mask. No gradient passes a decision, but an output that is one is judged at the
tensors that decide it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from polygraphy_layerprec.arrays import on_host
from polygraphy_layerprec.divergence.probes import Target, merge_targets, target_of
from polygraphy_layerprec.divergence.rules import find_rule
from polygraphy_layerprec.execution.kernels.node_session import value_of
from polygraphy_layerprec.execution.probes.integer_floats import IntegerFloats
from polygraphy_layerprec.execution.streams import can_carry_error
from polygraphy_layerprec.precision import is_floating

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    import onnxruntime as ort

    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.precision import Precision

__all__ = ["ErrorPaths", "NodePaths"]

_QUANTIZERS: Final = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})
_BLIND: Final = frozenset(
    {"IsInf", "IsNaN", "OptionalHasElement", "SequenceLength", "Shape", "Size"}
)
"""What they give does not depend on the size of any value."""
_ROUNDERS: Final = frozenset({"Ceil", "Floor", "Round"})
_DECIDERS: Final = frozenset({"Hardmax", "Sign"})
_CASTS: Final = frozenset({"Cast", "CastLike"})
_NARROW_FLOATS: Final = ("float16", "float8", "float4")


@dataclass(frozen=True, slots=True)
class NodePaths:
    """How errors arrive at one node and leave it."""

    wanted: frozenset[int]
    """Positions of the inputs that carry errors."""

    captured: frozenset[int]
    """Positions of the captured tensors that carry errors."""

    decided: Mapping[str, str]
    """Tensors that decide integers it takes, with the operator that decides."""

    steps: Literal["", "quantized", "narrowed", "decides"]
    """As in `TapeEntry`."""

    @property
    def are_reached(self) -> bool:
        """Whether any error arrives."""
        return bool(self.wanted or self.captured or self.decided)


class ErrorPaths:
    """Follows the nodes of one sample at a time."""

    def __init__(self, graph: Graph, precision: Precision) -> None:
        self._graph = graph
        self._integers = IntegerFloats(precision)
        self._carried: set[str] = set()
        self._deciders: dict[str, dict[str, str]] = {}
        self._targets: dict[str, Target] = {}

    def follow(
        self, node: Node, tensors: Mapping[str, ort.OrtValue], *, is_layer: bool
    ) -> NodePaths:
        """Returns how errors arrive at a node, and notes where they go on to.

        Args:
            node: The next node in execution order.
            tensors: Its sources and outputs, by name.
            is_layer: Whether it adds an error of its own.
        """
        decided: dict[str, str] = {}
        for name in node.sources:
            decided |= self._deciders.get(name, {})
        paths = NodePaths(
            frozenset(i for i, name in enumerate(node.inputs) if name in self._carried),
            frozenset(i for i, name in enumerate(node.captures) if name in self._carried),
            decided,
            _steps(node, tensors),
        )
        if paths.are_reached or is_layer:
            self._go_on(node, tensors, paths)
            self._integers.follow(node, tensors, is_layer=is_layer)
        return paths

    @property
    def inexact_integers(self) -> Mapping[int, float]:
        """As in `IntegerFloats.inexact`."""
        return self._integers.inexact

    def _go_on(self, node: Node, tensors: Mapping[str, ort.OrtValue], paths: NodePaths) -> None:
        for position, name in enumerate(node.outputs):
            tensor = tensors.get(name)
            if not name or tensor is None:
                continue
            if can_carry_error(tensor) or self._stands_for_floats(node, position, tensors, paths):
                self._carried.add(name)
            elif node.op_type not in _BLIND | _QUANTIZERS:
                self._decide(node, name, tensors, paths)

    def _stands_for_floats(
        self,
        node: Node,
        position: int,
        tensors: Mapping[str, ort.OrtValue],
        paths: NodePaths,
    ) -> bool:
        kind = tensors[node.outputs[position]].data_type()
        if not paths.wanted or not kind.startswith("tensor") or "int" not in kind:
            return False
        if node.op_type in _QUANTIZERS and not node.domain:
            return position == 0
        rule = find_rule(node.op_type, node.domain, node.opset)
        if rule is None or (position > 0 and node.op_type != "Split"):
            return False
        # Of floats, an operator with a rule makes integers by a decision: Cast, Sign.
        return not can_carry_error(tensors.get(node.inputs[min(paths.wanted)]))

    def _decide(
        self, node: Node, name: str, tensors: Mapping[str, ort.OrtValue], paths: NodePaths
    ) -> None:
        deciders = dict(paths.decided)
        for source in self._wanted_names(node, paths):
            deciders[source] = node.op_type
            tensor = tensors[source]
            if source not in self._targets and tensor.data_type().startswith("tensor"):
                self._targets[source] = target_of(on_host(value_of(tensor)))
        self._deciders[name] = deciders

    def targets(self, outputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, Target]:
        """Returns the tensors at which the errors of `outputs` are judged, by name.

        A tensor that carries errors is judged itself, any other one by the tensors that decide it,
        which share its weight.

        Args:
            outputs: Reference outputs that count, by name.
        """
        return merge_targets(self._targets_of(outputs))

    def _targets_of(self, outputs: Mapping[str, npt.NDArray[Any]]) -> Iterator[tuple[str, Target]]:
        for name, values in outputs.items():
            if name in self._carried or is_floating(values.dtype):
                yield name, target_of(values)
                continue
            known = [n for n in self._deciders.get(name, {}) if n in self._targets]
            for decider in known:
                weight, op = 1.0 / len(known), self._deciders[name][decider]
                yield decider, replace(self._targets[decider], weight=weight, decision=op)

    def forget(self) -> None:
        """Forgets everything, before the next sample."""
        self._carried.clear()
        self._deciders.clear()
        self._targets.clear()
        self._integers.forget()

    @staticmethod
    def _wanted_names(node: Node, paths: NodePaths) -> list[str]:
        inputs = [node.inputs[i] for i in sorted(paths.wanted)]
        return [*inputs, *(node.captures[i] for i in sorted(paths.captured))]


def _steps(
    node: Node, tensors: Mapping[str, ort.OrtValue]
) -> Literal["", "quantized", "narrowed", "decides"]:
    if node.op_type in _QUANTIZERS | _ROUNDERS or node.op_type.startswith("QLinear"):
        return "quantized"
    if node.op_type in _DECIDERS:
        return "decides"
    made = tensors.get(node.outputs[0]) if node.outputs else None
    narrows = made is not None and any(kind in made.data_type() for kind in _NARROW_FLOATS)
    return "narrowed" if narrows and node.op_type in _CASTS else ""
