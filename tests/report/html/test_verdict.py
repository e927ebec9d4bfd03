from __future__ import annotations

from dataclasses import replace

import pytest

from polygraphy_layerprec.records import OutputDivergence, OutputError
from polygraphy_layerprec.report.html.verdict import (
    judge_ranking,
    judge_verification,
    scale_positions,
)
from polygraphy_layerprec.selection import SelectionRequest
from tests.rankings import make_layer
from tests.report_models import make_report, make_verification, plain_layers


def chosen(report, **changes):
    return replace(report, selection=replace(report.selection, **changes))


def test_the_headline_says_what_fp16_costs_and_what_the_choice_brings():
    verdict = judge_ranking(make_report())

    # Impacts 1e-1, 1e-2, ...: without the first, sqrt(1e-4 + 1e-6 + 1e-8).
    assert verdict.headline == (
        "FP16 alone leaves an output error of 1.2e-02; "
        "1 of 4 layers in FP32 brings it to 1.0e-02 (forecast)."
    )
    assert verdict.tone == "neutral"
    assert [(mark.role, mark.error) for mark in verdict.marks] == [
        ("lowered", 0.0123),
        ("chosen", pytest.approx(0.0100504, rel=1e-4)),
    ]


def test_what_was_measured_counts_more_than_the_forecast():
    verdict = judge_ranking(chosen(make_report(), measured_error=5e-4))

    assert "brings it to 5.0e-04." in verdict.headline
    assert verdict.marks[1].note == "measured"


@pytest.mark.parametrize(("reached", "tone"), [(True, "good"), (False, "bad")])
def test_a_tolerance_decides(reached, tone):
    report = make_report(request=SelectionRequest(tolerance=0.05))

    verdict = judge_ranking(chosen(report, reached=reached, measured_error=0.04))

    assert verdict.tone == tone
    met = "is met" if reached else "is not met"
    assert f"The tolerance of 0.05 {met}: the error is 4.0e-02, measured." in verdict.sentences
    assert verdict.marks[-1].role == "tolerance"


def test_an_absolute_tolerance_does_not_stand_beside_relative_errors():
    report = replace(
        chosen(make_report(), measured_error=7.0, reached=False),
        tolerance=3.0,
        tolerance_is_absolute=True,
    )

    verdict = judge_ranking(report)

    assert "the largest absolute error is 7.0e+00, measured" in verdict.sentences[-1]
    assert {mark.role for mark in verdict.marks} == {"lowered", "chosen"}
    assert verdict.marks[1].note == "forecast"


def test_overflow_and_lost_elements_are_told():
    error = OutputError(1.0, 0.3, (OutputDivergence("y", 1.0, 1.0, 3, 1.0),))
    layers = [make_layer(1, "a", overflow=True), *plain_layers()[1:]]

    verdict = judge_ranking(make_report(*layers, output_error=error))

    assert verdict.sentences[:2] == (
        "3 output elements become NaN or infinite in FP16.",
        "1 layer leaves the range, and that is felt.",
    )


def test_nothing_to_keep_is_said():
    report = make_report(request=SelectionRequest(top_k=0))

    assert judge_ranking(report).headline.endswith("no layer needs to stay in FP32.")


def test_a_refuted_forecast_is_called_so():
    error = OutputError(0.9, 0.03, (OutputDivergence("y", 0.9, 1.0, 0, 1.0),))

    verdict = judge_ranking(make_report(output_error=error))

    assert verdict.headline.endswith("(forecast, refuted).")
    assert verdict.marks[0].note == "measured; forecast 3.0e-02, refuted"


def test_integer_outputs_are_judged_by_the_forecast():
    error = OutputError(0.0, 0.03, (OutputDivergence("label", None, None, 0, 0.5),))

    verdict = judge_ranking(make_report(output_error=error))

    assert verdict.marks[0].error == 0.03
    assert verdict.marks[0].note == "forecast"


@pytest.mark.parametrize(
    ("changes", "tone", "start"),
    [
        ({}, "good", "Passed"),
        ({"failures": ("the error 2 is too large",)}, "bad", "Failed: the error 2 is too large."),
        ({"tolerance": None}, "neutral", "Measured, without a tolerance"),
    ],
)
def test_a_verification_passes_or_fails(changes, tone, start):
    verdict = judge_verification(make_verification(**changes))

    assert verdict.tone == tone
    assert verdict.headline.startswith(start)
    assert verdict.marks[1].label == "3 of 12 layers in FP32"


def test_errors_stand_on_the_scale_by_their_logarithm():
    # The axis goes from 1e-4 to 1e0.
    assert scale_positions([1e-3, 1e-1, None, 0.0]) == pytest.approx([0.25, 0.75, None, 0.0])


def test_an_infinite_error_stands_at_the_end():
    assert scale_positions([1e-3, 1e38])[1] == 1.0
