"""The names of every tensor of a mixed-precision model, in FP32 and in low precision."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from polygraphy_layerprec.emit.mixed_onnx.header import OPTIONAL_INPUTS_IR
from polygraphy_layerprec.model.names import FreshNames
from polygraphy_layerprec.model.operators import ITERATING, PRODUCTS, Behavior, behavior_of
from polygraphy_layerprec.plan.batch_norm import is_folded
from polygraphy_layerprec.plan.widths import Plan, Width, reads_of

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Node

__all__ = ["TensorVersions", "is_folded_in"]


class TensorVersions:
    """Which widths each float tensor exists in, and under which names."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._fresh = FreshNames((*plan.graph.types, *plan.graph.weights))
        self.natives: dict[str, Width] = {}
        """The width that a tensor is made in."""
        self.fenced: set[str] = set()
        """Tensors that reach a loop or a product unchanged but for being moved."""
        self.names: dict[tuple[str, Width], str] = {}
        """Names by tensor and width."""
        self._collect()
        for name in self.natives:
            self._name_versions(name)

    def fresh(self, name: str) -> str:
        """Returns a name for a tensor that no other has."""
        return self._fresh.make(name)

    def of(self, name: str, width: Width) -> str:
        """Returns the name of a tensor in a width, or in the one that it is made in."""
        if name not in self.natives:
            return name
        return self.names[name, self.natives[name] if width is Width.EITHER else width]

    def _collect(self) -> None:
        """The width of every tensor where it is made, and the widths that it is read in."""
        plan, graph = self._plan, self._plan.graph
        self.natives = dict(plan.natives)
        self._wanted: dict[str, set[Width]] = {name: set() for name in self.natives}
        for node in graph.nodes:
            reads = reads_of(node, plan.of(node))
            for name, width in reads[:1] if is_folded_in(plan, node) else reads:
                if width in (Width.FP32, Width.LOW) and name in self._wanted:
                    self._wanted[name].add(width)
        for name in graph.outputs:
            if name in self.natives:
                self._wanted[name].add(plan.io_width)
        for name, native in plan.natives.items():
            if name in self.overridable:
                self.natives[name] = plan.io_width
            elif native is Width.EITHER:
                all_low = self._wanted[name] == {Width.LOW}
                self.natives[name] = Width.LOW if all_low else Width.FP32
        self._collect_fenced()

    def _collect_fenced(self) -> None:
        """Finds the tensors that reach a loop or a product unchanged but for being moved."""
        for node in reversed(self._plan.graph.nodes):
            moves = behavior_of(node.op_type, node.domain) is not Behavior.COMPUTES
            reaches = moves and not self.fenced.isdisjoint(node.outputs)
            is_end = node.op_type in ITERATING | PRODUCTS and not self._plan.is_lowered(node)
            if reaches or is_end:
                self.fenced.update(node.sources)

    def _name_versions(self, name: str) -> None:
        graph = self._plan.graph
        at_border = name in graph.outputs or name in self.fed
        owner = self._plan.io_width if at_border else self.natives[name]
        for width in (Width.FP32, Width.LOW):
            if width is owner:
                self.names[name, width] = name
            elif width is self.natives[name] or width in self._wanted[name]:
                suffix = "fp32" if width is Width.FP32 else self._plan.precision.name
                self.names[name, width] = self.fresh(f"{name}__{suffix}")

    @cached_property
    def fed(self) -> set[str]:
        """What a caller feeds, weights that a caller can override included."""
        model = self._plan.graph.proto
        names = {value.name for value in model.graph.input}
        # Very old models had to declare all their weights.
        old = model.ir_version < OPTIONAL_INPUTS_IR
        return names - self._plan.graph.weights.keys() if old else names

    @cached_property
    def overridable(self) -> set[str]:
        """Weights that a caller can override."""
        return self.fed & self._plan.graph.weights.keys()


def is_folded_in(plan: Plan, node: Node) -> bool:
    """Returns whether a normalization becomes one scale and one shift."""
    return plan.is_lowered(node) and is_folded(plan.graph, node)
