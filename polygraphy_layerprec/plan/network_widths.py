"""What an emitted script is told of a plan: it decides about a network's own tensors alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polygraphy_layerprec.model.element_types import FLOAT_TYPES
from polygraphy_layerprec.model.operators import ITERATING
from polygraphy_layerprec.plan.widths import Verdict, Width
from polygraphy_layerprec.records import Constraint, NetworkWidths

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Node
    from polygraphy_layerprec.plan.widths import Plan

__all__ = ["constraint_of", "network_widths"]


def network_widths(plan: Plan) -> NetworkWidths:
    """Returns the widths of tensors by ONNX name, and the nodes that a rule leaves in FP32."""
    nodes = list(zip(plan.graph.nodes, plan.nodes, strict=True))
    made = [
        (name, plan.natives[name])
        for node, _ in nodes
        for name in node.outputs
        if name in plan.natives and not _is_within_function(node) and not _iterates(node)
    ]
    return NetworkWidths(
        left=tuple(
            constraint_of(node, taken.reason)
            for node, taken in nodes
            if taken.reason and taken.verdict is not Verdict.KEPT and _gives_floats(plan, node)
        ),
        fp32_tensors=tuple(name for name, width in made if width is Width.FP32),
        low_tensors=tuple(name for name, width in made if width is Width.LOW),
    )


def constraint_of(node: Node, reason: str = "") -> Constraint:
    """Returns what names a node to a network that was parsed from the model."""
    trace = node.trace if node.path else ()
    return Constraint(node.proto.name, node.op_type, node.inputs, node.outputs, reason, trace)


def _gives_floats(plan: Plan, node: Node) -> bool:
    return any(plan.graph.element_type(name) in FLOAT_TYPES for name in node.outputs if name)


def _iterates(node: Node) -> bool:
    """Whether the network has a loop for it, whose borders have rules of their own."""
    return node.op_type in ITERATING and not node.domain


def _is_within_function(node: Node) -> bool:
    """Whether names of tensors are those of the expanded graph alone."""
    branches = ("(then_branch)", "(else_branch)", "(If)")
    return not all(part.endswith(branches) for part in node.path)
