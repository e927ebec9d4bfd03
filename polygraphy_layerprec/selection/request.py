"""What a user asks to keep in FP32."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from polygraphy_layerprec.selection.prices import Hardware

if TYPE_CHECKING:
    from polygraphy_layerprec.selection.groups import GroupKind
    from polygraphy_layerprec.selection.prices import CostKind

__all__ = ["SelectionRequest"]


@dataclass(frozen=True, slots=True)
class SelectionRequest:
    """What a user asks for.

    A size counts layers from the first of the ranking, which are those that overflow. Otherwise
    the search starts from these, as far as they are allowed.
    """

    tolerance: float | None = None
    """Largest relative L2 error of the outputs; None if the size is given, the default is wanted,
    or other criteria decide."""

    top_k: int | None = None
    """How many layers to keep; more if `keep` names more."""

    fp32_fraction: float | None = None
    """Share of the layers to keep, in [0, 1], rounded to whole layers."""

    keep: tuple[str, ...] = ()
    """Regular expressions: layers whose name matches one anywhere are kept, allowed or not."""

    allow: tuple[str, ...] = ()
    """Regular expressions: no other layers than those that match one may be kept. None: any."""

    cost: CostKind = "time"
    """What to save."""

    hardware: Hardware = field(default_factory=Hardware)
    """What an estimate of time rests on."""

    by: GroupKind = "layer"
    """What is kept as one: single layers, or whole groups of them; needs sets to be measured."""

    choose: int | None = None
    """Which of the sets that the ranking's decision lists, from 1; None for none of them."""
