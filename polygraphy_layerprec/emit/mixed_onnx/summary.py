"""What a lowering did, in numbers and reasons."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Fp32Node", "LoweringSummary"]


@dataclass(frozen=True, slots=True)
class Fp32Node:
    """A node that stays in FP32 though nobody asked for it."""

    name: str
    """Name of the ONNX node; may be empty or shared with other nodes."""

    op: str
    """ONNX operator, for example `Range`."""

    outputs: tuple[str, ...]
    """ONNX names of the output tensors as they stood before the rewriting."""

    reason: str
    """Why it cannot be lowered, in words."""


@dataclass(frozen=True, slots=True)
class LoweringSummary:
    """What became of a model's nodes and weights."""

    lowered: int
    """Nodes of the main graph whose float tensors are now in the low precision."""

    kept: int
    """Nodes that stay in FP32 because they were asked for."""

    followed: int
    """Nodes that only move, select or compare values and stay with FP32 ones, or that depend on
    constants alone."""

    left_in_fp32: tuple[Fp32Node, ...]
    """Nodes that stay in FP32 by a rule, in graph order."""

    casts: int
    """Cast nodes inserted."""

    converted: int
    """Weights (initializers and constants) that now exist in the low precision."""

    clamped: int
    """Weight values that would have become infinite, now the largest finite number."""

    flushed: int
    """Weight values other than zero that became zero."""
