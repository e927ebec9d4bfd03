from __future__ import annotations

import math
from dataclasses import replace

import pytest

from polygraphy_layerprec.records import Criterion, Judgement, Outcome
from tests.decisions import FINITE, L2, make_outcome

COSINE = Criterion("cosine similarity", 0.9999, higher_is_better=True)
SNR = Criterion("SNR", 60.0, higher_is_better=True, unit=" dB")


def test_the_metric_and_the_threshold_stand_beside_the_value():
    assert Judgement(L2, 0.0015, 0.3, "y").text == "relative L2 error 0.0015 (at most 0.005)"
    assert Judgement(SNR, 61.25, 0.9, "y").text == "SNR 61.2 dB (at least 60 dB)"
    assert L2.text == "relative L2 error at most 0.005"


def test_a_criterion_about_some_outputs_names_the_worst():
    boxes = Criterion("relative L2 error", 0.1, outputs=("boxes[..., :4]",))

    assert Judgement(boxes, 0.2, 2.0, "boxes[..., :4]").text == (
        "relative L2 error of boxes[..., :4] 0.2 (at most 0.1)"
    )


@pytest.mark.parametrize(
    ("criterion", "value", "shown"),
    [
        (L2, 0.0050001, "0.0050001"),
        (L2, 0.005, "0.005"),
        (COSINE, 0.99994999, "0.99995"),
        (COSINE, 0.9999998, "0.9999998"),
        (COSINE, 1.0, "1"),
        (COSINE, 1.0 - 2.0**-53, "0.9999999999999999"),
        (L2, math.nextafter(0.005, 1.0), "0.005000000000000001"),
        (SNR, math.inf, "infinite"),
        (L2, None, "unknown"),
    ],
)
def test_as_many_digits_are_shown_as_tell_a_value_from_the_threshold(criterion, value, shown):
    assert Judgement(criterion, value, 0.5).number == shown


def test_nan_and_infinity_are_counted():
    assert Judgement(FINITE, 1.0, math.inf).text == "1 output element becomes NaN or infinite"
    assert Judgement(FINITE, 8.0, math.inf).text == "8 output elements become NaN or infinite"


def test_the_worst_judgement_decides():
    outcome = make_outcome(0.006)

    assert outcome.excess == pytest.approx(1.2)
    assert not outcome.passed
    assert outcome.headline.criterion == L2
    assert make_outcome(0.005).passed
    assert make_outcome(0.001, lost=3).headline.criterion == FINITE
    assert outcome.of(FINITE).passed


def test_without_criteria_everything_passes():
    assert Outcome(0.1, ()).passed
    only = Outcome(0.0, (Judgement(FINITE, 0.0, 0.0),))
    assert only.headline.criterion == FINITE


@pytest.mark.parametrize(
    ("criterion", "value", "shortfall"),
    [
        (L2, L2.threshold / 2, 0.0),
        (L2, L2.threshold + 0.25, 0.25),
        (replace(L2, higher_is_better=True, threshold=0.75), 0.5, 0.25),
        (L2, None, math.inf),
    ],
)
def test_a_shortfall_is_in_the_unit_of_the_value(criterion, value, shortfall):
    excess = 0.5 if value is not None and shortfall == 0.0 else math.inf

    assert Judgement(criterion, value, excess).shortfall == pytest.approx(shortfall)
