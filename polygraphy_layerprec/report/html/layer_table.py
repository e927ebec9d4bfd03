"""The table of layers, and the same as columns for the page's script."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from polygraphy_layerprec.report.columns import printable
from polygraphy_layerprec.report.kind_styles import drawn_kind
from polygraphy_layerprec.report.numbers import format_error, format_percent
from polygraphy_layerprec.report.series import (
    BEYOND_NUMBERS,
    execution_positions,
    finite_impact,
    largest_magnitude,
    underflow_fraction,
)

if TYPE_CHECKING:
    from polygraphy_layerprec.records import RankedLayer
    from polygraphy_layerprec.report.ranking_report import RankingReport

__all__ = ["LayerRow", "layer_data", "layer_rows"]

_TIP: Final = (
    "{op} in {block:block}, layer {depth}",
    "impact {impact_text}, rank {rank}, {share_text} of the squared output error",
    "introduced {introduced:error}, cumulative {cumulative:error}",
    "max |x| {largest:error}, {underflow:percent} of the outputs underflow",
    "{reason}",
    "{kept:kept}",
)
_DETAILS: Final = (
    ("Name", "{name}", "name"),
    ("Block", "{block:block}", "name"),
    ("Reason", "{reason}", ""),
    (
        "Impact",
        "{impact_text} by {method}, {share_text} of the squared output error",
        "",
    ),
    (
        "Cause",
        "{weights:percent} of the squared impact from weights and inputs, the rest from the output",
        "",
    ),
    ("Errors", "introduced {introduced:error}, cumulative {cumulative:error}", ""),
    (
        "Range",
        "max |x| {largest:error}; {overflow:count} of {elements:count} output elements overflow",
        "",
    ),
    ("Underflow", "{underflow:percent} of the output elements round to 0", ""),
    ("Inputs", "{inputs:lines}", "name"),
    ("Outputs", "{outputs:lines}", "name"),
    ("Choice", "{kept:kept}", ""),
)


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One row of the table."""

    layer: RankedLayer
    """What was measured."""

    is_kept: bool
    """Whether it stays in FP32."""

    largest: float
    """Largest |x| it takes or gives."""

    is_estimated: bool
    """Whether its impact was found by another method than the one asked for."""

    @property
    def word(self) -> str:
        """What stands for an impact where there is no number for it; else nothing."""
        return self.layer.lost


def layer_rows(report: RankingReport) -> tuple[LayerRow, ...]:
    """Returns a row for each layer, worst first."""
    kept = {layer.name for layer in report.selection.layers}
    method = report.ranking.conditions.impact
    return tuple(
        LayerRow(layer, layer.name in kept, largest_magnitude(layer), layer.impact_method != method)
        for layer in report.ranking.layers
    )


def layer_data(report: RankingReport) -> dict[str, Any]:
    """Returns what the page's script sorts, searches and shows, as JSON values.

    A column is a list, worst first. What stands in braces in a text is a column, and after a colon
    how to write it.
    """
    return {
        "columns": _columns(report),
        "search": ["name", "op", "block", "reason"],
        "order": "rank",
        "walk": "depth",
        "tip": _TIP,
        "details": _DETAILS,
    }


def _columns(report: RankingReport) -> dict[str, list[Any]]:
    layers = report.ranking.layers
    kept = {layer.name for layer in report.selection.layers}
    return {
        "rank": [layer.rank for layer in layers],
        "name": [printable(layer.name) for layer in layers],
        "op": [printable(layer.op) for layer in layers],
        "block": [printable(layer.block) for layer in layers],
        "kind": [drawn_kind(layer.kind, layer.lost) for layer in layers],
        "reason": [printable(layer.reason) for layer in layers],
        "depth": list(execution_positions(layers)),
        # What loses values comes before all numbers when the table is sorted.
        "impact": [min(finite_impact(layer), BEYOND_NUMBERS) for layer in layers],
        "impact_text": [_text(layer, format_error(layer.impact)) for layer in layers],
        "method": [layer.impact_method for layer in layers],
        "share": [BEYOND_NUMBERS if layer.lost else layer.share for layer in layers],
        "share_text": [_text(layer, format_percent(layer.share)) for layer in layers],
        "introduced": [layer.introduced_error for layer in layers],
        "cumulative": [layer.cumulative_error for layer in layers],
        "largest": [largest_magnitude(layer) for layer in layers],
        "overflow": [layer.overflow_count for layer in layers],
        "underflow": [underflow_fraction(layer) for layer in layers],
        "weights": [layer.weight_share for layer in layers],
        "elements": [layer.element_count for layer in layers],
        "inputs": [[printable(name) for name in layer.inputs if name] for layer in layers],
        "outputs": [[printable(name) for name in layer.outputs if name] for layer in layers],
        "kept": [int(layer.name in kept) for layer in layers],
    }


def _text(layer: RankedLayer, number: str) -> str:
    return layer.lost or number
