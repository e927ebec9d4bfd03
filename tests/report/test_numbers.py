from __future__ import annotations

import math

import pytest

from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.report.numbers import (
    format_error,
    format_magnitude,
    format_percent,
    format_result,
)

DASH = "\N{EN DASH}"


@pytest.mark.parametrize(
    ("error", "in_a_table", "in_a_sentence"),
    [
        (None, DASH, DASH),
        (0.0, "0", "0"),
        (0.29, "2.9e-01", "0.29"),
        (1.4e-3, "1.4e-03", "1.4e-03"),
        (846_000.0, "8.5e+05", "8.5e+05"),
        (3.4e38, "inf", "inf"),
        (math.nan, "inf", "inf"),
    ],
)
def test_errors_have_two_digits(error, in_a_table, in_a_sentence):
    assert format_error(error) == in_a_table
    assert format_result(error) == in_a_sentence


def test_shares_are_per_cent():
    assert format_percent(0.1234) == "12.3 %"
    assert format_percent(None) == DASH


def test_one_is_singular_and_thousands_are_grouped():
    assert count_of(1, "layer") == "1 layer"
    assert count_of(0, "layer") == "0 layers"
    assert count_of(1234, "layer") == "1,234 layers"


@pytest.mark.parametrize(("value", "text"), [(3.4e38, "3.4e+38"), (math.inf, "inf"), (0.0, "0")])
def test_a_large_magnitude_is_not_called_infinite(value, text):
    assert format_magnitude(value) == text
