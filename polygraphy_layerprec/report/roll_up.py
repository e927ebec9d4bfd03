"""Shares of the output error added up over groups of layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from polygraphy_layerprec.records import RankedLayer

__all__ = ["LayerGroup", "roll_up_by_block", "roll_up_by_op"]


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Layers that have something in common."""

    name: str
    """What they have in common: an operator or a block; empty for the top level of the model."""

    layer_count: int
    """How many there are."""

    share: float
    """Their share of the squared output error of all layers, in [0, 1]."""

    largest_impact: float
    """Impact of the worst of them, a relative L2 error; 0 is best."""

    overflow_count: int
    """How many of them overflow."""


def roll_up_by_op(layers: Iterable[RankedLayer]) -> tuple[LayerGroup, ...]:
    """Returns the layers by ONNX operator, the largest share first."""
    return _roll_up(layers, lambda layer: layer.op)


def roll_up_by_block(layers: Iterable[RankedLayer]) -> tuple[LayerGroup, ...]:
    """Returns the layers by part of the model, the largest share first."""
    return _roll_up(layers, lambda layer: layer.block)


def _roll_up(
    layers: Iterable[RankedLayer], key: Callable[[RankedLayer], str]
) -> tuple[LayerGroup, ...]:
    members: dict[str, list[RankedLayer]] = {}
    for layer in layers:
        members.setdefault(key(layer), []).append(layer)
    groups = [
        LayerGroup(
            name=name,
            layer_count=len(group),
            share=sum(layer.share for layer in group),
            largest_impact=max(layer.impact for layer in group),
            overflow_count=sum(layer.overflow for layer in group),
        )
        for name, group in members.items()
    ]
    return tuple(sorted(groups, key=lambda group: (-group.share, group.name)))
