from __future__ import annotations

from dataclasses import replace

import pytest

from polygraphy_layerprec.records import OutputDivergence, OutputError
from polygraphy_layerprec.report.headline import (
    judge_ranking,
    judge_verification,
    scale_positions,
)
from polygraphy_layerprec.selection import SelectionRequest
from tests.decisions import make_decision
from tests.rankings import make_layer
from tests.report_models import make_report, make_verification, plain_layers


def decided(report, decision):
    return replace(report, selection=replace(report.selection, decision=decision))


def test_without_a_measurement_the_headline_is_the_forecast():
    verdict = judge_ranking(make_report())

    # Impacts 1e-1, 1e-2, ...: without the first, sqrt(1e-4 + 1e-6 + 1e-8).
    assert verdict.headline == (
        "FP16 alone leaves a relative L2 error of 1.2e-02; "
        "with 1 of 4 layers in FP32 1.0e-02 is left (forecast)."
    )
    assert verdict.tone == "neutral"
    assert [(mark.role, mark.error) for mark in verdict.marks] == [
        ("lowered", 0.0123),
        ("chosen", pytest.approx(0.0100504, rel=1e-4)),
    ]


@pytest.mark.parametrize(("error", "tone"), [(1e-3, "good"), (6e-3, "bad")])
def test_what_was_decided_is_the_headline(error, tone):
    decision = make_decision(error)

    verdict = judge_ranking(decided(make_report(), decision))

    assert verdict.headline == decision.sentence
    assert verdict.tone == tone
    assert verdict.marks[1].note == "measured"
    assert verdict.marks[1].error == error


def test_the_tolerance_of_a_forecast_stands_beside_it():
    verdict = judge_ranking(make_report(request=SelectionRequest(tolerance=0.05)))

    assert (verdict.marks[-1].role, verdict.marks[-1].error) == ("tolerance", 0.05)


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

    assert judge_ranking(report).headline.endswith("no layer is chosen to stay in FP32.")


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


def test_measured_integer_outputs_share_a_scale_with_no_l2_error():
    error = OutputError(0.5, 0.03, (OutputDivergence("label", None, None, 0, 0.5),))

    verdict = judge_ranking(decided(make_report(output_error=error), make_decision(0.125)))

    assert verdict.metric == "share of unequal integers"
    assert [(mark.role, mark.error, mark.note) for mark in verdict.marks] == [
        ("lowered", 0.5, "measured; share of unequal integers"),
        ("chosen", 0.125, "measured; share of unequal integers"),
    ]
    assert judge_ranking(make_report()).metric == "relative L2 error"


@pytest.mark.parametrize(
    ("changes", "tone", "start", "sentence"),
    [
        ({}, "good", "FP16 loses accuracy", "Passed."),
        ({"failures": ("too large",)}, "bad", "FP16 loses accuracy", "Failed."),
        ({"failures": ("other",), "sentence": ""}, "bad", "Failed: other.", "Failed."),
    ],
)
def test_a_verification_passes_or_fails(changes, tone, start, sentence):
    verdict = judge_verification(make_verification(**changes))

    assert verdict.tone == tone
    assert verdict.headline.startswith(start)
    assert verdict.sentences[0] == sentence
    assert verdict.marks[1].label == "3 of 12 layers in FP32"


def test_errors_stand_on_the_scale_by_their_logarithm():
    # The axis goes from 1e-4 to 1e0.
    assert scale_positions([1e-3, 1e-1, None, 0.0]) == pytest.approx([0.25, 0.75, None, 0.0])


def test_an_infinite_error_stands_at_the_end():
    assert scale_positions([1e-3, 1e38])[1] == 1.0
