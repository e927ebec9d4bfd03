"""What each kind of trouble looks like where layers are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from polygraphy_layerprec.records import LostValues

__all__ = ["KIND_STYLES", "KindStyle", "drawn_kind"]


@dataclass(frozen=True, slots=True)
class KindStyle:
    """A shape for each of the ways to draw, as colour alone does not tell a kind to everybody.

    Shapes are filled, since outlines are not drawn. Kinds of quantised models share some with kinds
    that only narrow formats have.
    """

    bokeh: str
    """Marker of a page."""

    matplotlib: str
    """Marker of a picture."""

    color: str
    """Colour of a picture; pages have theirs in the style sheet."""


_READS_OVERFLOW: Final = "reads overflow"

KIND_STYLES: Final = {
    "overflow": KindStyle("triangle", "^", "#c8371b"),
    _READS_OVERFLOW: KindStyle("triangle", "^", "#e6937f"),
    "guard": KindStyle("square_pin", "p", "#7a2348"),
    "inexact integers": KindStyle("square_pin", "X", "#8c3b7a"),
    "benign overflow": KindStyle("inverted_triangle", "v", "#d08a2e"),
    "underflow": KindStyle("square", "s", "#2b87c8"),
    "cancellation": KindStyle("diamond", "D", "#8e4bb5"),
    "long reduction": KindStyle("hex", "h", "#0c8a7d"),
    "saturation": KindStyle("triangle_pin", "^", "#b3541e"),
    "outlier channel": KindStyle("star", "*", "#a3278f"),
    "lost values": KindStyle("plus", "P", "#3f6fb5"),
    "wasted range": KindStyle("square", "X", "#4f8a3a"),
    "dead channels": KindStyle("inverted_triangle", "d", "#6b5aa8"),
    "rounding": KindStyle("circle", "o", "#77818e"),
    "exact": KindStyle("circle", "o", "#b7bdc5"),
}
"""Each kind, in the order of a legend."""


def drawn_kind(kind: str, lost: LostValues) -> str:
    """Returns the kind that a layer is drawn as, one of `KIND_STYLES`.

    Those that only read an overflow look otherwise than those to blame. What no version of ours
    names is drawn as rounding.

    Args:
        kind: The kind of trouble that the layer is in.
        lost: What becomes of its values.
    """
    drawn = _READS_OVERFLOW if lost == _READS_OVERFLOW else kind
    return drawn if drawn in KIND_STYLES else "rounding"
