from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraphy_layerprec.report.columns import (
    Column,
    align_columns,
    display_width,
    narrowest_width,
    printable,
    shorten,
    wrap_text,
)


def test_numbers_line_up_on_the_right_and_names_on_the_left():
    columns = [Column("Layer", ("a", "bcd")), Column("N", ("1", "200"), "right")]

    assert align_columns(columns, width=80) == [
        "Layer    N",
        "a        1",
        "bcd    200",
    ]


def test_columns_move_together_with_a_smaller_gap():
    columns = [Column("Layer", ("a",)), Column("N", ("1",), "right")]

    assert align_columns(columns, width=80, gap=1) == ["Layer N", "a     1"]


def test_only_columns_that_may_be_shortened_are():
    columns = [Column("Layer", ("x" * 40,), minimum=10), Column("Value", ("1.25e+00",), "right")]

    assert align_columns(columns, width=22) == [
        "Layer            Value",
        "xxxxx...xxxx  1.25e+00",
    ]


@pytest.mark.parametrize(
    ("width", "cut", "shortened"),
    [
        (20, "middle", "/encoder/layer.0/Add"),
        (13, "middle", "/enco...0/Add"),
        (13, "end", "/encoder/l..."),
        (3, "middle", "..."),
        (2, "middle", ".."),
        (0, "middle", ""),
    ],
)
def test_shortening_keeps_what_it_should(width, cut, shortened):
    assert shorten("/encoder/layer.0/Add", width, cut=cut) == shortened


@given(st.text(), st.integers(0, 40), st.sampled_from(["middle", "end"]))
def test_a_shortened_text_is_never_too_wide(text, width, cut):
    assert display_width(shorten(printable(text), width, cut=cut)) <= width


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name", "plain name"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202eevil", r"\u202eevil"),
        ("\x85", r"\x85"),
        ("層", "層"),
    ],
)
def test_control_characters_are_escaped(text, shown):
    assert printable(text) == shown


@given(st.text())
def test_what_is_printed_can_be_printed(text):
    assert printable(text).isprintable()


def test_wide_characters_take_two_cells_and_accents_none():
    assert display_width("層a") == 3
    assert display_width("e\u0301") == 1


@given(
    st.lists(st.tuples(st.text(max_size=60), st.text(max_size=60)), max_size=5),
    st.integers(0, 60),
)
def test_lines_fit_wherever_the_columns_can_shrink_enough(rows, spare):
    names, reasons = zip(*rows, strict=True) if rows else ((), ())
    columns = [
        Column("Layer", tuple(names), minimum=8),
        Column("Reason", tuple(reasons), minimum=9, cut="end"),
    ]
    width = narrowest_width(columns) + spare

    lines = align_columns(columns, width=width)

    assert len(lines) == len(rows) + 1
    assert all(display_width(line) <= width for line in lines)


def test_text_is_wrapped_at_blanks_and_indented():
    lines = wrap_text("one two  three four", 11, indent="  ")

    assert lines == ["  one two", "  three", "  four"]


@given(st.text(), st.integers(4, 30))
def test_wrapped_text_fits_and_loses_nothing_but_blanks(text, width):
    lines = wrap_text(printable(text), width, indent="  ")

    assert all(display_width(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(printable(text).split())
