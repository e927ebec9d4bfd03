"""What a lowering did, in numbers and reasons."""

from __future__ import annotations

from dataclasses import dataclass

from polygraphy_layerprec.plan.widths import LeftNode

__all__ = ["LoweringSummary"]


@dataclass(frozen=True, slots=True)
class LoweringSummary:
    """What became of a model's nodes and weights."""

    lowered: int
    """Nodes whose float tensors are now in the low precision."""

    kept: int
    """Nodes that stay in FP32 because they were requested."""

    followed: int
    """Nodes that only move, select or compare values and stay with FP32 ones, or that depend on
    constants alone."""

    left_in_fp32: tuple[LeftNode, ...]
    """Nodes that stay in FP32 by a rule, in graph order."""

    deviating: tuple[LeftNode, ...]
    """Nodes that are lowered, but not just as a network lowers them, in graph order."""

    casts: int
    """Cast nodes inserted."""

    converted: int
    """Weights (initializers and constants) that now exist in the low precision."""

    clamped: int
    """Weight values that would have become infinite, now the largest finite number."""

    flushed: int
    """Weight values other than zero that became zero."""

    raised_opset: tuple[int, int] | None = None
    """The opset of the model and that of the result, where it was raised for the precision."""
