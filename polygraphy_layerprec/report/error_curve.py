"""Errors against layers in FP32: what was measured, or a forecast where nothing was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from polygraphy_layerprec.report.choice import shown_criterion

if TYPE_CHECKING:
    from polygraphy_layerprec.records import Decision, MeasuredSet
    from polygraphy_layerprec.report.ranking_report import RankingReport

__all__ = ["CurveDot", "ErrorCurve", "curve_of_report"]


@dataclass(frozen=True, slots=True)
class CurveDot:
    """One set of layers in FP32."""

    layer_count: int
    """How many layers it has."""

    error: float
    """Its error, from 0 to infinity."""

    how: Literal["measured", "forecast"]
    """How that is known."""


@dataclass(frozen=True, slots=True)
class ErrorCurve:
    """What errors sets of layers leave."""

    dots: tuple[CurveDot, ...]
    """The sets, by size."""

    chosen: CurveDot
    """What was chosen."""

    limit: float | None
    """The error that just passes; None where none was asked for."""

    metric: str
    """What the error is, in words."""


def curve_of_report(report: RankingReport) -> ErrorCurve:
    """Returns the sets that were measured; what the forecast says only where none was."""
    decision = report.selection.decision
    return _forecast(report) if decision is None else _measured(decision)


def _measured(decision: Decision) -> ErrorCurve:
    criterion = shown_criterion(decision)
    is_error = not criterion.higher_is_better

    def dot_of(found: MeasuredSet) -> CurveDot:
        judgement = found.outcome.of(criterion)
        value = judgement.value if is_error else judgement.excess
        error = judgement.excess if value is None else float(value)
        return CurveDot(found.cost.layer_count, error, "measured")

    dots = tuple(sorted(map(dot_of, decision.sets), key=_by_size))
    chosen = dot_of(decision.sets[decision.chosen - 1])
    if is_error:
        return ErrorCurve(dots, chosen, criterion.threshold or None, criterion.metric)
    # Of a similarity, FP32 has 1 and not 0.
    metric = f"{criterion.metric}: error, as a multiple of the one that just passes"
    return ErrorCurve(dots, chosen, 1.0, metric)


def _forecast(report: RankingReport) -> ErrorCurve:
    selection = report.selection
    dots = [CurveDot(p.layer_count, p.forecast_error, "forecast") for p in report.curve]
    dots += [
        CurveDot(p.layer_count, p.measured_error, "measured")
        for p in report.curve
        if p.measured_error is not None
    ]
    found, count = selection.measured_error, selection.cost.layer_count
    chosen = CurveDot(count, selection.forecast_error, "forecast")
    if found is not None:
        chosen = CurveDot(count, found, "measured")
    dots.sort(key=_by_size)
    return ErrorCurve(tuple(dots), chosen, selection.tolerance, "relative L2 error")


def _by_size(dot: CurveDot) -> tuple[int, float]:
    return dot.layer_count, -dot.error
