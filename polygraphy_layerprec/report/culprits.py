"""What breaks a model in low precision, grouped by what the layers are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.report.columns import printable

if TYPE_CHECKING:
    from polygraphy_layerprec.records import RankedLayer, Ranking

__all__ = ["CulpritGroup", "find_culprits", "scope_of"]

_NOTABLE_SHARE: Final = 0.01
_SHOWN_WITHOUT_TROUBLE: Final = 3
_OPS_SHOWN: Final = 3
_NORM_OPS: Final = frozenset(
    {"Pow", "Mul", "ReduceMean", "Add", "Sqrt", "Div", "Sub", "Reciprocal"}
)
_LARGEST_PATTERN: Final = 16  # layers: what is larger holds a norm, and is none

_TOLD_KINDS: Final = frozenset(
    {
        *("inexact integers", "cancellation", "underflow"),
        *("saturation", "outlier channel", "lost values", "wasted range", "dead channels"),
    }
)
"""Kinds of trouble that say something beside the share of the error."""


@dataclass(frozen=True, slots=True)
class CulpritGroup:
    """Layers of one part of the model that have trouble."""

    place: str
    """The part of the model, or the layer where there is one; may hold any character."""

    what: str
    """What they are: `LayerNorm written out`, `Add, Sub`."""

    trouble: str
    """What happens there, with the figures: `3 layers overflow, |x| up to 8.46e+05`."""

    layers: tuple[RankedLayer, ...]
    """The layers, worst first."""

    @property
    def is_broken(self) -> bool:
        """Whether values become infinite or NaN because of it."""
        return any(layer.lost for layer in self.layers)

    @property
    def gravity(self) -> tuple[bool, bool, bool, float]:
        """How grave its trouble is, to be compared: of two, the smaller is graver."""
        lost = {layer.lost for layer in self.layers} - {""}
        share = sum(layer.share for layer in self.layers if not layer.lost)
        is_exact_no_more = any(layer.kind == "inexact integers" for layer in self.layers)
        return not lost, lost == {"reads overflow"}, not is_exact_no_more, 0.0 if lost else -share

    @property
    def text(self) -> str:
        """All of it on one line, printable."""
        return f"{printable(self.place)}: {printable(self.what)}, {self.trouble}"


def find_culprits(ranking: Ranking, kept: Collection[str] = ()) -> tuple[CulpritGroup, ...]:
    """Returns what is to blame for the output error, worst first: what loses values, then shares.

    Where nothing stands out, these are the layers with the largest impacts.

    Args:
        ranking: What was measured.
        kept: Unique names of the layers that stay in FP32.
    """
    layers = [layer for layer in ranking.layers if _is_culprit(layer, kept)]
    layers = layers or list(ranking.layers[:_SHOWN_WITHOUT_TROUBLE])
    members: dict[tuple[str, str], list[RankedLayer]] = {}
    for layer in layers:
        scope = scope_of(layer)
        members.setdefault((scope, "" if scope else layer.op), []).append(layer)
    groups = (_group(scope, group, ranking.layers) for (scope, _), group in members.items())
    return tuple(sorted(groups, key=lambda group: group.gravity))


def scope_of(layer: RankedLayer) -> str:
    """Returns the module that a layer belongs to, as its name tells; empty for the top level."""
    name = layer.node_name or next(filter(None, layer.outputs), layer.name)
    return name.rpartition("/")[0].strip("/") or layer.block.strip("/")


def _is_culprit(layer: RankedLayer, kept: Collection[str]) -> bool:
    cancels = layer.kind == "cancellation" and layer.name in kept
    is_urgent = bool(layer.lost) or layer.kind == "inexact integers"
    return is_urgent or cancels or layer.share >= _NOTABLE_SHARE


def _group(
    scope: str, layers: Sequence[RankedLayer], everything: Sequence[RankedLayer]
) -> CulpritGroup:
    place = scope or count_of(len(layers), "layer")
    if len(layers) == 1:
        place = layers[0].name
    around = [layer for layer in everything if scope and scope_of(layer) == scope]
    return CulpritGroup(place, _describe_pattern(layers, around), _trouble(layers), tuple(layers))


def _describe_pattern(layers: Sequence[RankedLayer], around: Sequence[RankedLayer]) -> str:
    """The operator that these layers are the pieces of, or else their own."""
    ops = [*dict.fromkeys(layer.op for layer in layers)]
    present = {layer.op for layer in around}
    if len(around) <= _LARGEST_PATTERN:
        if {"ReduceMean", "Sqrt"} <= present and _NORM_OPS.issuperset(ops):
            return f"{'LayerNorm' if 'Sub' in present else 'RMSNorm'} written out"
        if {"Exp", "ReduceSum", "Div"} <= present:
            return "Softmax written out"
    more = f" and {len(ops) - _OPS_SHOWN} more" if len(ops) > _OPS_SHOWN else ""
    return ", ".join(ops[:_OPS_SHOWN]) + more


def _trouble(layers: Sequence[RankedLayer]) -> str:
    """What happens in them, the gravest first."""
    overflowing = [layer for layer in layers if layer.overflow]
    reading = [layer for layer in overflowing if layer.reads_overflow]
    guards = [layer for layer in layers if layer.keeps_finite and not layer.overflow]
    rest = [layer for layer in layers if not layer.lost]
    parts = []
    if len(overflowing) > len(reading):
        parts.append(_counted(len(overflowing) - len(reading), "overflows", "overflow"))
    if reading:
        parts.append(_counted(len(reading), "reads an overflow", "read an overflow"))
    if overflowing:
        largest = max(max(layer.max_abs, layer.max_abs_input) for layer in overflowing)
        parts.append(f"|x| up to {largest:.3g}")
    if guards:
        parts.append(_counted(len(guards), "keeps outputs finite", "keep outputs finite"))
    kinds = [*dict.fromkeys(layer.kind for layer in rest)]
    parts += [kind for kind in kinds if kind in _TOLD_KINDS]
    share = sum(layer.share for layer in rest)
    if rest:
        figure = f"{float(f'{100 * share:.2g}'):g} % of the error"
        parts.append(figure if len(rest) == len(layers) else f"{figure} in the rest")
    return ", ".join(parts)


def _counted(number: int, one: str, several: str) -> str:
    return f"1 layer {one}" if number == 1 else f"{number} layers {several}"
