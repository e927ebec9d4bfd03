"""The precision of every node, in words that the rewriting needs no knowledge of operators for."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["NodePlan", "Verdict", "Width"]


class Width(enum.Enum):
    """The precision of a float tensor, or the one in which it is wanted."""

    FP32 = enum.auto()
    LOW = enum.auto()
    EITHER = enum.auto()


class Verdict(enum.Enum):
    """What becomes of a node."""

    UNTOUCHED = enum.auto()
    """It holds no float tensor, or does not care: it is a constant, or reads either precision."""

    KEPT = enum.auto()
    """It stays in FP32 because it was asked for."""

    LEFT = enum.auto()
    """It stays in FP32 by a rule."""

    FOLLOWS = enum.auto()
    """It moves, selects or compares FP32 values and rounds nothing, or depends on constants
    alone."""

    LOWERED = enum.auto()
    """Its float tensors are in the low precision."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What becomes of one node."""

    verdict: Verdict
    """In a word."""

    reason: str
    """Why it is left in FP32, empty otherwise."""

    inputs: tuple[Width | None, ...]
    """For each input the precision in which it is read, None where it is no float tensor."""

    outputs: tuple[Width | None, ...]
    """For each output the precision in which it is made, None where it is no float tensor."""
