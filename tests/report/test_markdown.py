"""Markdown, read again by a program that renders it."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from polygraphy_layerprec.ranking.agreement import compare_rankings
from polygraphy_layerprec.records import (
    Constraint,
    NetworkScript,
    NetworkWidths,
    OutputDivergence,
    OutputError,
)
from polygraphy_layerprec.report.columns import printable, shorten
from polygraphy_layerprec.report.markdown import (
    format_agreement_markdown,
    format_ranking_markdown,
    format_report_markdown,
    format_script_markdown,
    format_verification_markdown,
)
from polygraphy_layerprec.report.markdown_syntax import code_span, escape_markdown
from tests.decisions import make_decision
from tests.rankings import make_layer, make_ranking
from tests.report_models import (
    HOSTILE_NAMES,
    decided_report,
    hostile_report,
    make_report,
    make_verification,
)

RENDERER = MarkdownIt("commonmark", {"html": True}).enable("table")


def cells_of(lines):
    """Returns the texts of each row of the tables, as a reader sees them."""
    rendered = RENDERER.render("\n".join(lines))
    rows = re.findall(r"<tr>(.*?)</tr>", rendered, re.DOTALL)
    return [
        [text_of(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in rows
    ]


def text_of(rendered):
    return unescape(re.sub("<[^>]*>", "", rendered))


def test_a_ranking_is_a_table_with_its_conditions_below():
    ranking = make_ranking(make_layer(1, "a"), make_layer(2, "b"), warnings=("Mind the gap.",))

    lines = format_ranking_markdown(ranking, top=1, kept={"a"})

    rows = cells_of(lines)
    assert rows[0][-2:] == ["Max |x|", "Why"]
    assert rows[1:] == [
        [
            *("1", "a FP32", "Add", "1.0e-03", "50.0 %", "4.9e-04", "2.0e-03", "1.2e+01"),
            "rounding: 50.0 % of the output error",
        ]
    ]
    text = text_of(RENDERER.render("\n".join(lines)))
    assert "model.onnx: 1 of 2 layers in FP16; RMS relative L2 error 1.2e-02 measured" in text
    assert "Mind the gap." in text
    assert "2 samples of the user; stability of the order 0.99, the rank correlation" in text
    assert "; onnxruntime-emulated, impact by adjoint; digest abab" in text


@pytest.mark.parametrize(("sort_by", "first"), [("impact", "b"), ("name", "a")])
def test_layers_are_listed_in_the_order_asked_for(sort_by, first):
    ranking = make_ranking(make_layer(1, "b"), make_layer(2, "a"))

    assert cells_of(format_ranking_markdown(ranking, sort_by=sort_by))[1][1] == first


def test_a_report_begins_with_the_verdict_and_ends_with_the_command():
    lines = format_report_markdown(make_report())

    assert lines[0].startswith("**FP16 alone leaves a relative L2 error")
    assert lines[-3:] == ["```sh", "polygraphy layerprec constrain 'a b.json'", "```"]
    assert cells_of(lines)[1][1] == "/block.1/Op_1 FP32"


def test_hostile_names_stay_in_their_cells():
    rows = cells_of(format_ranking_markdown(hostile_report().ranking))

    assert {len(row) for row in rows} == {9}
    shown = [row[1] for row in rows[1:]]
    assert shown[:4] == list(HOSTILE_NAMES[:4])
    assert shown[4].startswith("xxx")
    assert len(shown[4]) <= 120
    assert shown[6] == HOSTILE_NAMES[6]


def test_hostile_names_are_no_html_and_mention_nobody():
    rendered = RENDERER.render("\n".join(format_report_markdown(hostile_report())))

    assert not re.search("<(script|img|!--)", rendered)
    outside_code = re.sub(r"<code>.*?</code>", "", rendered, flags=re.DOTALL)
    assert "@somebody" not in outside_code
    assert "#12" not in outside_code


def test_a_refuted_forecast_is_marked():
    error = OutputError(0.86, 0.06, (OutputDivergence("y", 0.86, 1.0, 0, 1.0),))

    head = format_ranking_markdown(make_ranking(output_error=error))[0]

    assert "8.6e-01 measured, 6.0e-02 forecast, refuted" in head


# A character may be shown as ten, and longer names are shortened.
@given(st.text(min_size=1, max_size=12))
def test_any_name_is_read_back_from_its_cell(name):
    shown = shorten(printable(name), 120)

    ((_, _), (cell, after)) = cells_of(["| a | b |", "| - | - |", f"| {code_span(name)} | x |"])

    assert after == "x"
    assert cell.split() == shown.split()


@given(st.text(max_size=20))
def test_any_reason_is_read_back_without_markup(text):
    ((_, _), (cell, after)) = cells_of(
        ["| a | b |", "| - | - |", f"| {escape_markdown(text)} | x |"]
    )

    assert after == "x"
    shown = shorten(printable(text), 200)
    assert cell.replace("\N{ZERO WIDTH NON-JOINER}", "").split() == shown.split()


def test_the_sets_to_choose_from_are_a_table_below_the_verdict():
    lines = format_report_markdown(decided_report())

    assert lines[0] == "**FP16 loses accuracy: 0.1.**"
    assert cells_of(lines)[:3] == [
        ["N", "Layers", "Operations", "Casts", "Relative L2 error", "Criterion"],
        ["1", "0", "0.0%", "0", "0.1", "not met"],
        ["2 *", "1", "12.5%", "4", "0.001", "met"],
    ]
    decision = decided_report().selection.decision
    assert cells_of(format_ranking_markdown(make_ranking(decision=decision)))[2][0] == "2 *"


@pytest.mark.parametrize("name", [*HOSTILE_NAMES[:4], HOSTILE_NAMES[6]])
def test_a_hostile_metric_stays_in_its_cell(name):
    lines = format_report_markdown(decided_report(name))

    assert [len(row) for row in cells_of(lines)[:3]] == [7, 7, 7]
    assert not re.search("<(script|img|!--)", RENDERER.render("\n".join(lines)))


def test_a_long_list_of_verified_layers_is_cut():
    kept = tuple(Constraint(f"n{i}", "Add", (), (), "") for i in range(23))

    assert format_verification_markdown(make_verification(constraints=kept))[-1].endswith(
        "and 3 layers more"
    )


def test_a_verification_is_a_verdict_and_a_table():
    lines = format_verification_markdown(make_verification(warnings=("Look | here.",)))

    assert lines[0].startswith("**FP16 loses accuracy: relative L2 error 0.01")
    rows = cells_of(lines)
    assert ["relative L2 error at most 0.005", "0.01", "0.0001", "met"] in rows
    assert ["logits", "1.0e-07", "1.0e-02", "1.0e-04", "99.0 %"] in rows
    assert ["/norm/Pow", "Pow", "overflow: |x| up to 8.1e5"] in rows
    assert ["sum", "Add", "31 % of the output error"] in rows
    assert "model.onnx: 3 of 12 layers in FP32, the script 'constraints.py'; FP16" in text_of(
        RENDERER.render("\n".join(lines))
    )
    assert "Look | here." in text_of(RENDERER.render("\n".join(lines)))


def test_a_comparison_lists_what_moved_most():
    first = make_ranking(*(make_layer(rank, f"l{rank}") for rank in (1, 2, 3)))
    second = make_ranking(*(make_layer(rank, f"l{4 - rank}") for rank in (1, 2, 3)))
    agreement = compare_rankings(first, second, first_label="a", second_label="b")

    rows = cells_of(format_agreement_markdown(agreement, top=1))

    assert [row[:4] for row in rows[1:]] == [["l1", "Add", "1", "3"]]


def test_a_script_lists_what_it_keeps_and_why():
    constraint = Constraint("", "Pow", ("x",), ("", "y|z"), "overflow: |x| up to 8e5")
    script = NetworkScript(
        model_name="m.onnx",
        model_digest="ab",
        precision="fp16",
        io_precision="fp32",
        allow_unmatched=False,
        constraints=(constraint,),
        widths=NetworkWidths(),
        altered=False,
    )

    rows = cells_of(format_script_markdown(script))

    assert rows[1] == ["y|z", "Pow", "overflow: |x| up to 8e5"]


def test_a_verdict_is_shown_whole_however_long_it_is():
    sentence = "FP16 is broken by " + ", ".join(f"/layer.{index}" for index in range(90)) + "."
    decision = replace(make_decision(), sentence=sentence)

    lines = format_ranking_markdown(
        replace(make_ranking(), decision=decision), top=3, sort_by="impact", kept=set()
    )

    assert lines[0] == f"**{sentence}**"
