"""Shares of the output error added up over groups of layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from polygraphy_layerprec.records import LostValues, RankedLayer

__all__ = ["LayerGroup", "roll_up_by_block", "roll_up_by_op"]


_GRAVEST_FIRST: Final[tuple[LostValues, ...]] = ("overflow", "NaN/Inf", "reads overflow", "")
_SMALLEST_SHARE: Final = 0.0005  # what is told as 0.1 %


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
    """Impact of the worst of those that lose no values, a relative L2 error; 0 is best."""

    overflow_count: int
    """How many of them overflow themselves."""

    reading_count: int = 0
    """How many of them only read what overflows elsewhere."""

    lost: LostValues = ""
    """The gravest thing that becomes of values in any of them."""

    @property
    def share_says_nothing(self) -> bool:
        """Whether values are lost, and what stays finite has hardly a share of the error."""
        return bool(self.lost) and self.share < _SMALLEST_SHARE


def roll_up_by_op(layers: Iterable[RankedLayer]) -> tuple[LayerGroup, ...]:
    """Returns the layers by ONNX operator: those that lose values, then the largest share."""
    return _roll_up(layers, lambda layer: layer.op)


def roll_up_by_block(layers: Iterable[RankedLayer]) -> tuple[LayerGroup, ...]:
    """Returns the layers by part of the model, in the order of `roll_up_by_op`."""
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
            largest_impact=max((layer.impact for layer in group if not layer.lost), default=0.0),
            overflow_count=sum(layer.lost == "overflow" for layer in group),
            reading_count=sum(layer.lost == "reads overflow" for layer in group),
            lost=min((layer.lost for layer in group), key=_GRAVEST_FIRST.index),
        )
        for name, group in members.items()
    ]
    return tuple(sorted(groups, key=_place))


def _place(group: LayerGroup) -> tuple[int, float, str]:
    return _GRAVEST_FIRST.index(group.lost), -group.share, group.name
