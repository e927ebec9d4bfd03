"""The verdict on top of a report: a headline, and errors on one scale."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from polygraphy_layerprec.precision import lowered_to
from polygraphy_layerprec.ranking.order import forecast_holds, forecast_is_refuted
from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.report.choice import describe_casts
from polygraphy_layerprec.report.numbers import (
    format_error,
    format_percent,
    format_result,
)
from polygraphy_layerprec.report.series import log_axis, on_log_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.records import Ranking, Verification
    from polygraphy_layerprec.report.ranking_report import RankingReport

__all__ = ["ErrorMark", "Verdict", "judge_ranking", "judge_verification", "scale_positions"]

Tone = Literal["good", "bad", "neutral"]


@dataclass(frozen=True, slots=True)
class ErrorMark:
    """One error on the scale."""

    label: str
    """What has it, in words."""

    error: float | None
    """Relative L2 error, or share of unequal integers; None if it was not measured."""

    note: str
    """How it was found, in words."""

    role: Literal["lowered", "chosen", "tolerance", "reference", "first", "second"]
    """What it stands for."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the reader should know first."""

    tone: Tone
    """How it ends."""

    headline: str
    """One sentence."""

    sentences: tuple[str, ...]
    """What stands behind it."""

    marks: tuple[ErrorMark, ...]
    """Errors to be compared."""

    metric: str = "relative L2 error"
    """What they are."""


def judge_ranking(report: RankingReport) -> Verdict:
    """Returns what a ranking says about the model, and what the chosen set changes."""
    verdict = Verdict(
        _tone(report), _headline(report), tuple(_sentences(report)), tuple(_marks(report))
    )
    if not _has_shares(report):
        return verdict
    return replace(verdict, marks=tuple(_marks_of_shares(report)), metric=_metric(report))


def judge_verification(verification: Verification) -> Verdict:
    """Returns whether a constrained model holds its criteria."""
    headline = "Failed: " + "; ".join(verification.failures) + "."
    if verification.sentence:
        headline = verification.sentence
    marks = [
        ErrorMark(
            f"all layers {lowered_to(verification.precision)}",
            verification.lowered_error,
            "measured",
            "lowered",
        ),
        ErrorMark(
            f"{verification.kept_count} of {count_of(verification.layer_count, 'layer')} in FP32",
            verification.constrained_error,
            "measured",
            "chosen",
        ),
        ErrorMark("all layers in FP32", verification.fp32_error, "on this backend", "reference"),
    ]
    sentences = ["Passed." if verification.passed else "Failed."]
    if verification.recovered is not None and verification.recovered > 0.0:
        sentences.append(
            f"The layers in FP32 take away {format_percent(verification.recovered)} of the error."
        )
    tone: Tone = "good" if verification.passed else "bad"
    return Verdict(tone, headline, tuple(sentences), tuple(marks))


def scale_positions(errors: Sequence[float | None]) -> tuple[float | None, ...]:
    """Returns where errors stand on a logarithmic scale, in [0, 1]; None where there is none."""
    ends = log_axis(errors)
    bottom, top = (math.log10(end) for end in ends)
    return tuple(
        None if error is None else (math.log10(on_log_axis(error, ends)) - bottom) / (top - bottom)
        for error in errors
    )


def _tone(report: RankingReport) -> Tone:
    if report.selection.decision is None:
        return "neutral"
    return "good" if report.selection.decision.outcome.passed else "bad"


def _headline(report: RankingReport) -> str:
    if report.selection.decision is not None:
        return report.selection.decision.sentence
    low = report.ranking.precision.upper()
    kept = report.selection.cost.layer_count
    start = f"{low} alone leaves a relative L2 error of {format_result(_lowered_error(report))}"
    if not kept:
        return f"{start}; no layer is chosen to stay in FP32."
    layers = f"{kept} of {count_of(report.ranking.layer_count, 'layer')} in FP32"
    refuted = ", refuted" if forecast_is_refuted(report.ranking) else ""
    return (
        f"{start}; with {layers} {format_result(report.selection.forecast_error)} is left "
        f"(forecast{refuted})."
    )


def _sentences(report: RankingReport) -> list[str]:
    selection, ranking = report.selection, report.ranking
    lost = sum(output.nonfinite_count for output in ranking.output_error.outputs)
    sentences = []
    if lost:
        elements = count_of(lost, "output element")
        become = "becomes" if lost == 1 else "become"
        sentences.append(f"{elements} {become} NaN or infinite in {ranking.precision.upper()}.")
    sentences += _overflows(ranking)
    if selection.layers:
        share = f"{format_percent(selection.cost.flops_fraction)} of the operations"
        changes = "; ".join(filter(None, (share, describe_casts(selection.cost))))
        sentences.append(f"What stays in FP32 is {changes}.")
    decision = selection.decision
    remedies = [remedy.text for remedy in decision.remedies] if decision is not None else []
    if remedies:
        sentences.append("Or change the model: " + "; ".join(remedies) + ".")
    return sentences


def _overflows(ranking: Ranking) -> list[str]:
    """How many layers leave the range, apart from those that read what is beyond it."""
    lost = [layer.lost for layer in ranking.layers]
    leaving, reading = lost.count("overflow"), lost.count("reads overflow")
    sentences = []
    if leaving:
        leave = "leaves" if leaving == 1 else "leave"
        sentences.append(f"{count_of(leaving, 'layer')} {leave} the range, and that is felt.")
    if reading:
        read = "reads" if reading == 1 else "read"
        sentences.append(f"{count_of(reading, 'layer')} only {read} what is beyond it.")
    return sentences


def _marks(report: RankingReport) -> list[ErrorMark]:
    ranking, selection = report.ranking, report.selection
    refuted = "" if forecast_holds(ranking.output_error) else ", refuted"
    forecast = f"forecast {format_error(ranking.output_error.forecast)}{refuted}"
    is_measured = any(output.error is not None for output in ranking.output_error.outputs)
    note = f"measured; {forecast}" if is_measured else "forecast"
    label = f"all layers {lowered_to(ranking.precision)}"
    marks = [ErrorMark(label, _lowered_error(report), note, "lowered")]
    if selection.layers:
        found = "forecast" if selection.measured_error is None else "measured"
        label = f"{selection.cost.layer_count} of {ranking.layer_count:,} in FP32"
        marks.append(ErrorMark(label, _chosen_error(report), found, "chosen"))
    if selection.tolerance is not None:
        marks.append(ErrorMark("tolerance", selection.tolerance, "by the forecast", "tolerance"))
    return marks


def _has_shares(report: RankingReport) -> bool:
    return report.ranking.output_error.is_share and report.selection.measured_error is not None


def _metric(report: RankingReport) -> str:
    return report.ranking.output_error.metric


def _marks_of_shares(report: RankingReport) -> list[ErrorMark]:
    """Of outputs that are integers: shares, which no forecast of an L2 error stands beside."""
    ranking, selection = report.ranking, report.selection
    share = _metric(report)
    label = f"all layers {lowered_to(ranking.precision)}"
    marks = [ErrorMark(label, ranking.output_error.measured, f"measured; {share}", "lowered")]
    if selection.layers:
        label = f"{selection.cost.layer_count} of {ranking.layer_count:,} in FP32"
        marks.append(ErrorMark(label, selection.measured_error, f"measured; {share}", "chosen"))
    return marks


def _lowered_error(report: RankingReport) -> float:
    """Integer outputs have no error: the forecast is 0 for them as well."""
    error = report.ranking.output_error
    known = any(output.error is not None for output in error.outputs)
    return error.measured if known else error.forecast


def _chosen_error(report: RankingReport) -> float:
    measured = report.selection.measured_error
    return report.selection.forecast_error if measured is None else measured
