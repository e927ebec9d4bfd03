"""What the page about two rankings shows: the verdict, and the layers of both."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from polygraphy_layerprec.precision import lowered_to
from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.report.columns import printable
from polygraphy_layerprec.report.headline import ErrorMark, Verdict
from polygraphy_layerprec.report.numbers import format_error
from polygraphy_layerprec.report.series import BEYOND_NUMBERS

if TYPE_CHECKING:
    from polygraphy_layerprec.records import LostValues, RankedSide, RankingAgreement

__all__ = ["judge_agreement", "move_data"]

_TIP: Final = (
    "{op}",
    "impact {first_text} and {second_text}",
    "place {first} and {second}",
    "{reason}",
)
_DETAILS: Final = (
    ("Name", "{name}", "name"),
    ("What sets the two apart", "{reason}", ""),
    ("Place", "{first} in the first ranking, {second} in the second", ""),
    ("Impact", "{first_text} and {second_text}", ""),
    ("Introduced error", "{first_introduced:error} and {second_introduced:error}", ""),
    ("Cumulative error", "{first_cumulative:error} and {second_cumulative:error}", ""),
    ("Kind", "{first_kind} and {second_kind}", ""),
)


def judge_agreement(agreement: RankingAgreement) -> Verdict:
    """Returns how far two rankings agree, in words, and their output errors."""
    correlation = agreement.impact_correlation
    if not agreement.shared_count:
        headline = "The rankings have no layer in common."
    elif correlation is None:
        headline = f"The rankings share {count_of(agreement.shared_count, 'layer')}."
    else:
        headline = (
            f"Impacts of the {count_of(agreement.shared_count, 'shared layer')} correlate by "
            f"{correlation:.3f}."
        )
    sentences = [
        f"{overlap.shared_count} of the worst {overlap.count} are in both."
        for overlap in agreement.overlaps
    ]
    if not agreement.same_model:
        sentences.insert(0, "They are about different models.")
    marks = (
        ErrorMark("first ranking", agreement.first.measured_error, _how(agreement.first), "first"),
        ErrorMark(
            "second ranking", agreement.second.measured_error, _how(agreement.second), "second"
        ),
    )
    return Verdict("neutral", headline, tuple(sentences), marks)


def move_data(agreement: RankingAgreement) -> dict[str, Any]:
    """Returns what the page's script sorts, searches and shows, as `layer_data` does."""
    moves = agreement.layers
    return {
        "columns": {
            "name": [printable(move.name) for move in moves],
            "op": [printable(move.op) for move in moves],
            "reason": [printable(move.reason) for move in moves],
            "first": [move.first_rank for move in moves],
            "second": [move.second_rank for move in moves],
            "shift": [move.shift for move in moves],
            "distance": [abs(move.shift) for move in moves],
            "first_impact": [_sorted_by(m.first_impact, m.first_lost) for m in moves],
            "second_impact": [_sorted_by(m.second_impact, m.second_lost) for m in moves],
            "first_text": [move.first_lost or format_error(move.first_impact) for move in moves],
            "second_text": [move.second_lost or format_error(move.second_impact) for move in moves],
            "first_introduced": [move.first_introduced_error for move in moves],
            "second_introduced": [move.second_introduced_error for move in moves],
            "first_cumulative": [move.first_cumulative_error for move in moves],
            "second_cumulative": [move.second_cumulative_error for move in moves],
            "first_kind": [move.first_kind for move in moves],
            "second_kind": [move.second_kind for move in moves],
        },
        "search": ["name", "op", "reason"],
        "order": "distance",
        "walk": "first",
        "tip": _TIP,
        "details": _DETAILS,
    }


def _sorted_by(impact: float, lost: LostValues) -> float:
    return BEYOND_NUMBERS if lost else impact


def _how(side: RankedSide) -> str:
    forecast = "" if math.isinf(side.forecast_error) else f"; forecast {side.forecast_error:.1e}"
    return f"all layers {lowered_to(side.precision)}, measured{forecast}"
