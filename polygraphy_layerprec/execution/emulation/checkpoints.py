"""Where runs of one sample stood on their way: plans that begin alike go on from there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import onnxruntime as ort

    from polygraphy_layerprec.plan import Plan

__all__ = ["Checkpoint", "Checkpoints", "HeldTensor"]

_POSITIONS: Final = 12
_KEPT_AT_EACH: Final = 2
"""A search goes back and forth between two beginnings."""

_BYTES_PER_ELEMENT: Final = 8  # FP32 and its rounded copy


class HeldTensor(Protocol):
    """A tensor on its way, which no later node changes."""

    tensor: ort.OrtValue
    """Its value."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was held before a node ran."""

    position: int
    """Place of the node in execution order."""

    plan: Plan
    """What the nodes before it were run as."""

    exact_inputs: bool
    """How they were run."""

    held: Mapping[str, HeldTensor]
    """The tensors that the node or later ones read."""


class Checkpoints:
    """The checkpoints of one sample, as many as fit."""

    def __init__(self, node_count: int, *, most_bytes: int) -> None:
        """Spreads positions over a graph.

        Args:
            node_count: Nodes of the graph.
            most_bytes: Memory for the tensors of all checkpoints together, in bytes.
        """
        step = node_count / (_POSITIONS + 1)
        self._positions = {round(step * i) for i in range(1, _POSITIONS + 1)} - {0}
        self._kept: dict[int, list[tuple[Checkpoint, int]]] = {}
        self._most_bytes = most_bytes

    def latest(self, plan: Plan, *, exact_inputs: bool) -> Checkpoint | None:
        """Returns the last checkpoint before which a plan is what was run."""
        found = None
        for kept in self._kept.values():
            for checkpoint, _ in kept:
                is_later = found is None or checkpoint.position > found.position
                if is_later and checkpoint.exact_inputs is exact_inputs:
                    same = checkpoint.plan.nodes[: checkpoint.position]
                    if same == plan.nodes[: checkpoint.position]:
                        found = checkpoint
        return found

    def is_due(self, position: int, *, after: int) -> bool:
        """Returns whether a run from the node `after` makes a checkpoint at a later one."""
        return position > after and position in self._positions

    def keep(self, checkpoint: Checkpoint) -> None:
        """Keeps a checkpoint in place of the older ones there, if there is room."""
        size = sum(map(_size, checkpoint.held.values()))
        others = self._kept.pop(checkpoint.position, [])[: _KEPT_AT_EACH - 1]
        taken = sum(bytes_ for kept in self._kept.values() for _, bytes_ in kept)
        room = self._most_bytes - taken
        kept: list[tuple[Checkpoint, int]] = []
        for one in [(checkpoint, size), *others]:
            if one[1] <= room:
                kept.append(one)
                room -= one[1]
        self._kept[checkpoint.position] = kept


def _size(held: HeldTensor) -> int:
    kind = held.tensor.data_type()
    return _BYTES_PER_ELEMENT * math.prod(held.tensor.shape()) if kind.startswith("tensor") else 0
