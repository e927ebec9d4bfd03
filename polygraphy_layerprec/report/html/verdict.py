"""The verdict on top of a report: a headline, and errors on one scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from polygraphy_layerprec.ranking.order import forecast_holds, forecast_is_refuted
from polygraphy_layerprec.report.html.numbers import (
    count_of,
    format_error,
    format_percent,
    format_result,
)
from polygraphy_layerprec.report.html.series import log_axis, on_log_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.records import Verification
    from polygraphy_layerprec.report.html.ranking_report import RankingReport

__all__ = ["ErrorMark", "Verdict", "judge_ranking", "judge_verification", "scale_positions"]

Tone = Literal["good", "bad", "neutral"]


@dataclass(frozen=True, slots=True)
class ErrorMark:
    """One error on the scale."""

    label: str
    """What has it, in words."""

    error: float | None
    """Relative L2 error; None if it was not measured."""

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


def judge_ranking(report: RankingReport) -> Verdict:
    """Returns what a ranking says about the model, and what the chosen set changes."""
    return Verdict(
        _tone(report), _headline(report), tuple(_sentences(report)), tuple(_marks(report))
    )


def judge_verification(verification: Verification) -> Verdict:
    """Returns whether a constrained model holds its tolerance."""
    low = verification.precision.upper()
    tones: dict[bool | None, Tone] = {True: "good", False: "bad", None: "neutral"}
    headlines = {
        True: "Passed: the outputs are within the tolerance.",
        False: "Failed: " + "; ".join(verification.failures) + ".",
        None: "Measured, without a tolerance to judge by.",
    }
    marks = [
        ErrorMark(f"all layers in {low}", verification.lowered_error, "measured", "lowered"),
        ErrorMark(
            f"{verification.kept_count} of {count_of(verification.layer_count, 'layer')} in FP32",
            verification.constrained_error,
            "measured",
            "chosen",
        ),
        ErrorMark("all layers in FP32", verification.fp32_error, "on this backend", "reference"),
    ]
    if verification.tolerance is not None:
        marks.append(ErrorMark("tolerance", verification.tolerance, "given", "tolerance"))
    sentences = []
    if verification.recovered is not None and verification.recovered > 0.0:
        sentences.append(
            f"The layers in FP32 take away {format_percent(verification.recovered)} of the error."
        )
    return Verdict(
        tones[verification.passed], headlines[verification.passed], tuple(sentences), tuple(marks)
    )


def scale_positions(errors: Sequence[float | None]) -> tuple[float | None, ...]:
    """Returns where errors stand on a logarithmic scale, in [0, 1]; None where there is none."""
    ends = log_axis(error if _is_finite(error) else None for error in errors)
    bottom, top = (math.log10(end) for end in ends)
    return tuple(
        None if error is None else (math.log10(on_log_axis(error, ends)) - bottom) / (top - bottom)
        for error in errors
    )


def _is_finite(error: float | None) -> bool:
    return error is not None and error < 1e30


def _tone(report: RankingReport) -> Tone:
    if report.tolerance is None:
        return "neutral"
    return "good" if report.selection.reached else "bad"


def _headline(report: RankingReport) -> str:
    low = report.ranking.precision.upper()
    kept = report.selection.cost.layer_count
    start = f"{low} alone leaves an output error of {format_result(_lowered_error(report))}"
    if not kept:
        return f"{start}; no layer needs to stay in FP32."
    layers = f"{kept} of {count_of(len(report.ranking.layers), 'layer')} in FP32"
    verb = "brings" if kept == 1 else "bring"
    refuted = ", refuted" if forecast_is_refuted(report.ranking) else ""
    known = "" if _relative_error(report) is not None else f" (forecast{refuted})"
    return f"{start}; {layers} {verb} it to {format_result(_chosen_error(report))}{known}."


def _sentences(report: RankingReport) -> list[str]:
    selection, ranking = report.selection, report.ranking
    overflowing = sum(layer.overflow for layer in ranking.layers)
    lost = sum(output.nonfinite_count for output in ranking.output_error.outputs)
    sentences = []
    if lost:
        elements = count_of(lost, "output element")
        sentences.append(f"{elements} become NaN or infinite in {ranking.precision.upper()}.")
    if overflowing:
        leave = "leaves" if overflowing == 1 else "leave"
        sentences.append(f"{count_of(overflowing, 'layer')} {leave} the range, and that is felt.")
    if selection.layers:
        sentences.append(
            f"What stays in FP32 is {format_percent(selection.cost.flops_fraction)} of the "
            f"operations; {count_of(selection.cost.cast_count, 'tensor')} "
            f"{'is' if selection.cost.cast_count == 1 else 'are'} cast."
        )
    if report.tolerance is not None:
        sentences.append(_tolerance_sentence(report))
    return sentences


def _tolerance_sentence(report: RankingReport) -> str:
    selection = report.selection
    what = "largest absolute error" if report.tolerance_is_absolute else "error"
    error, how = selection.forecast_error, "forecast"
    if selection.measured_error is not None:
        error, how = selection.measured_error, "measured"
    met = "is met" if selection.reached else "is not met"
    return (
        f"The tolerance of {report.tolerance:.3g} {met}: the {what} is "
        f"{format_error(error)}, {how}."
    )


def _marks(report: RankingReport) -> list[ErrorMark]:
    ranking, selection = report.ranking, report.selection
    low = ranking.precision.upper()
    refuted = "" if forecast_holds(ranking.output_error) else ", refuted"
    forecast = f"forecast {format_error(ranking.output_error.forecast)}{refuted}"
    is_measured = any(output.error is not None for output in ranking.output_error.outputs)
    note = f"measured; {forecast}" if is_measured else "forecast"
    marks = [ErrorMark(f"all layers in {low}", _lowered_error(report), note, "lowered")]
    if selection.layers:
        found = "forecast" if _relative_error(report) is None else "measured"
        label = f"{selection.cost.layer_count} of {len(ranking.layers):,} in FP32"
        marks.append(ErrorMark(label, _chosen_error(report), found, "chosen"))
    if report.tolerance is not None and not report.tolerance_is_absolute:
        marks.append(ErrorMark("tolerance", report.tolerance, "given", "tolerance"))
    return marks


def _lowered_error(report: RankingReport) -> float:
    """Integer outputs have no error: the forecast is 0 for them as well."""
    error = report.ranking.output_error
    known = any(output.error is not None for output in error.outputs)
    return error.measured if known else error.forecast


def _relative_error(report: RankingReport) -> float | None:
    """The chosen set's relative error, if it was measured."""
    return None if report.tolerance_is_absolute else report.selection.measured_error


def _chosen_error(report: RankingReport) -> float:
    measured = _relative_error(report)
    return report.selection.forecast_error if measured is None else measured
