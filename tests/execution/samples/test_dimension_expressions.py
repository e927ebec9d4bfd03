from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from polygraphy_layerprec.execution.samples.dimension_expressions import DimensionExpression

EXTENTS = {"past": 16, "sequence": 128, "height": 225, "seq-len": 7, "DynamicDimension.0": 3}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sequence", 128),
        ("past + sequence", 144),
        ("past+1", 17),
        ("2*sequence", 256),
        ("sequence - 1", 127),
        ("sequence//2 + 1", 65),
        ("floor(height/2 - 1/2) + 1", 113),
        ("ceil(height/2)", 113),
        ("max(1, past - 20)", 1),
        ("past - sequence", 1),  # no axis is empty
        ("seq-len", 7),
        ("seq-len + past", 23),
        ("DynamicDimension.0", 3),
        ("DynamicDimension.0*past", 48),
    ],
)
def test_values_are_those_of_the_arithmetic(text, expected):
    assert DimensionExpression.parse(text).value(EXTENTS) == expected


@pytest.mark.parametrize(
    "text",
    ["?", "a b", "f(x)", "a ** b", "__import__('os')", "a if b else c", "1/(a - a)", "a" * 600],
)
def test_text_that_is_no_arithmetic_is_one_symbol(text):
    expression = DimensionExpression.parse(text)

    assert expression.symbols == (text,)
    assert expression.value({text: 5}) == 5


def test_a_division_by_zero_leaves_one():
    assert DimensionExpression.parse("8/(a - 4)").value({"a": 4}) == 1


@given(st.integers(1, 500), st.integers(1, 500), st.sampled_from(["+", "*"]))
def test_the_open_symbol_of_a_sum_or_a_product_is_found(known, wanted, sign):
    extent = known + wanted if sign == "+" else known * wanted

    assert DimensionExpression.parse(f"a {sign} b").solve(extent, {"a": known}) == ("b", wanted)


@pytest.mark.parametrize(
    ("text", "extent", "known"),
    [
        ("a + b", 5, {"a": 2, "b": 3}),
        ("a + b", 5, {}),
        ("a + b", 5, {"a": 9}),
        ("2*a", 5, {}),
        ("3 - a", 2, {}),
    ],
)
def test_what_is_not_open_or_does_not_fit_is_not_solved(text, extent, known):
    assert DimensionExpression.parse(text).solve(extent, known) is None
