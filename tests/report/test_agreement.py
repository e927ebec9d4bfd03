"""The agreement of two rankings on a terminal and in a file."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from polygraphy_layerprec.files.record_codec import from_json_value
from polygraphy_layerprec.ranking.agreement import compare_rankings
from polygraphy_layerprec.records import RankingAgreement
from polygraphy_layerprec.report.agreement import format_agreement, save_agreement
from polygraphy_layerprec.report.agreement_headline import move_data
from polygraphy_layerprec.report.columns import display_width
from polygraphy_layerprec.report.markdown import format_agreement_markdown
from tests.rankings import make_layer, make_ranking, troubled_ranking


def agreement_of(first, second):
    return compare_rankings(first, second, first_label="a.json", second_label="b.json")


def reordered(*names):
    return make_ranking(
        *(make_layer(rank, name, outputs=(name,)) for rank, name in enumerate(names, start=1))
    )


def text_of(first, second, **options):
    return "\n".join(format_agreement(agreement_of(first, second), **options))


def test_a_ranking_beside_itself_says_that_nothing_moved():
    text = text_of(reordered(*"abc"), reordered(*"abc"))

    assert "First: a.json | 3 layers of model.onnx in FP16, onnxruntime-emulated; 2 samples" in text
    assert "Conditions: alike" in text
    assert "rank correlation of the order 1.000" in text
    assert "In both: 1 of the worst 1" in text
    assert "Moved: no layer" in text
    assert "Only in" not in text


def test_what_moved_is_listed_with_both_places():
    text = text_of(reordered(*"abc"), reordered(*"bca"), width=100)

    assert "Moved: 3 of 3 layers" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["1", "3", "+2", "Add", "a", "rounding,", "impact", "1.0e-03", "->", "3.3e-04"] in rows


def test_the_list_is_as_long_as_asked():
    text = text_of(reordered(*"abcd"), reordered(*"dcba"), top=1)

    assert "Moved: 4 of 4 layers, the 1 that moved most" in text
    assert sum("+" in line for line in text.splitlines()) == 1


def test_output_errors_stand_side_by_side():
    first = make_ranking()
    second = replace(first, output_error=replace(first.output_error, measured=0.5))

    rows = [line.split() for line in text_of(first, second).splitlines()]

    assert ["logits", "1.2e-02", "1.2e-02"] in rows
    assert ["label", "-", "-"] in rows
    assert ["(all,", "measured)", "1.2e-02", "5.0e-01"] in rows


def test_conditions_and_layers_of_one_side_are_listed():
    second = reordered(*"abcdefgh")
    second = replace(second, conditions=replace(second.conditions, backend="tensorrt"))

    text = text_of(reordered("a"), second)

    assert "Conditions that differ:" in text
    assert "tensorrt" in text
    assert "Only in the second: 7 layers" in text
    assert "  2 b (Add) | rounding" in text
    assert "and 2 more" in text


def test_no_layer_in_common_is_told():
    assert "Moved: there is no layer in both" in text_of(reordered("a"), reordered("b"))


@pytest.mark.parametrize("width", [72, 80, 120, 200])
def test_lines_fit_the_terminal_and_hold_no_control_characters(width):
    hostile = "層/正規化\n\x1b[31m" + "/very/long" * 30
    first = troubled_ranking()
    second = make_ranking(
        *(replace(layer, rank=3 - i, kind=hostile) for i, layer in enumerate(first.layers)),
        make_layer(4, hostile, op="Custom" * 9, outputs=(hostile,)),
        model=replace(first.model, name=hostile, digest="cd"),
    )

    lines = format_agreement(
        compare_rankings(first, second, first_label=hostile, second_label="b"), width=width
    )

    assert all(line.isprintable() for line in lines)
    assert max(map(display_width, lines)) <= width


def test_the_file_holds_everything_and_is_the_same_each_time(tmp_path):
    agreement = agreement_of(make_ranking(), troubled_ranking())

    for name in ("one.json", "two.json"):
        save_agreement(agreement, tmp_path / name)

    content = json.loads((tmp_path / "one.json").read_text())
    assert content["schema_version"] == 1
    assert from_json_value(RankingAgreement, content) == agreement
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_what_loses_values_has_a_word_for_its_impact():
    first = make_ranking(make_layer(1, "a"), make_layer(2, "b"))
    second = make_ranking(
        make_layer(1, "b", impact=1e-12, keeps_finite=True), make_layer(2, "a", impact=1e-12)
    )

    agreement = agreement_of(first, second)

    (move,) = (move for move in agreement.layers if move.name == "b")
    assert (move.first_lost, move.second_lost) == ("", "NaN/Inf")
    assert move.reason == "finite -> NaN/Inf"
    (row,) = (line for line in format_agreement_markdown(agreement) if "`b`" in line)
    assert "| 5.0e-04 | NaN/Inf | finite -" in row
    columns = move_data(agreement)["columns"]
    place = columns["name"].index("b")
    assert columns["second_text"][place] == "NaN/Inf"
    assert columns["second_impact"][place] > 1e30
