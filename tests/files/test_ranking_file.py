from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraphy_layerprec import records
from polygraphy_layerprec.files.ranking_file import SCHEMA_VERSION, load_ranking, save_ranking
from polygraphy_layerprec.files.record_codec import from_json_value, to_json_value
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.records import OutputDivergence, OutputError, RankedLayer, Ranking
from polygraphy_layerprec.report.series import largest_magnitude, magnitude_axis
from polygraphy_layerprec.selection.forecast import SetForecast
from tests.rankings import make_layer, make_ranking, troubled_ranking

DOCUMENT = Path(__file__).parents[2] / "docs" / "ranking-file.md"


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "ranking.json"
    save_ranking(troubled_ranking(), path)
    return path


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_loading_gives_back_what_was_saved(saved):
    assert load_ranking(saved) == troubled_ranking()


# Hypothesis builds records from their annotations, defaults excepted unless they are named.
finite = st.floats(allow_nan=False, allow_infinity=False)
st.register_type_strategy(int, st.integers(-(2**63) + 1, 2**63 - 1))  # larger ones are refused
rankings = st.builds(
    Ranking,
    output_error=st.builds(
        OutputError,
        measured=finite | st.just(math.inf),
        forecast=finite,
        outputs=st.lists(
            st.builds(
                OutputDivergence,
                error=st.none() | finite | st.just(math.inf),
                max_abs_error=st.none() | finite,
                mismatch_fraction=finite,
            )
        ).map(tuple),
    ),
    layers=st.lists(
        st.builds(
            RankedLayer,
            **{
                field.name: finite
                for field in dataclasses.fields(RankedLayer)
                if field.type == "float"
            },
            cumulative_error=st.none() | finite,
            readers=st.lists(st.tuples(st.text(), finite), max_size=3).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    stability=st.none() | finite,
)


@settings(max_examples=25)  # each holds hundreds of fields
@given(rankings)
def test_any_ranking_survives_the_way_through_json(ranking):
    text = json.dumps(to_json_value(ranking), allow_nan=False)

    assert from_json_value(Ranking, json.loads(text)) == ranking


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for name in ("a.json", "b.json", "a.csv", "b.csv"):
        save_ranking(troubled_ranking(), tmp_path / name)

    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_the_promised_keys_are_there(saved):
    content = json.loads(saved.read_text())

    assert content["schema_version"] == 1
    assert {"model", "precision", "output_error", "layers"} <= content.keys()
    assert {"measured", "forecast", "outputs"} <= content["output_error"].keys()
    promised = (
        "name op outputs rank impact share introduced_error cumulative_error max_abs overflow"
    )
    assert {*promised.split(), "reason"} <= content["layers"][0].keys()
    assert content["layers"][0]["overflow"] is True


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_named_and_not_saved(tmp_path, value):
    path = tmp_path / "ranking.json"

    with pytest.raises(ValueError, match=re.escape("layers[1].impact must be finite")):
        save_ranking(make_ranking(make_layer(), make_layer(2, impact=value)), path)

    assert not path.exists()


def test_csv_has_a_row_for_each_layer_with_every_field(tmp_path):
    ranking = troubled_ranking()
    save_ranking(ranking, tmp_path / "ranking.csv")

    with (tmp_path / "ranking.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))

    assert [row["name"] for row in rows] == [layer.name for layer in ranking.layers]
    assert list(rows[0]) == [field.name for field in dataclasses.fields(RankedLayer)]
    assert float(rows[1]["introduced_error"]) == ranking.layers[1].introduced_error
    assert rows[0]["cumulative_error"] == ""
    assert json.loads(rows[0]["inputs"]) == ["x", ""]
    assert rows[0]["overflow"] == "true"


@pytest.mark.parametrize("name", ["ranking", "ranking.txt", "ranking.json.bak"])
def test_another_ending_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=re.escape("must end in .json or .csv")):
        save_ranking(make_ranking(), tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema_version=2), "schema_version is 2"),
        (lambda c: c.pop("schema_version"), "schema_version is None"),
        (lambda c: c.pop("layers"), "layers is missing"),
        (lambda c: c["layers"][0].pop("impact"), "layers[0].impact is missing"),
        (lambda c: c["layers"][0].update(impact="high"), "layers[0].impact must be a number"),
        (lambda c: c["layers"][0].update(impact=True), "layers[0].impact must be a number"),
        (lambda c: c["layers"][0].update(rank=1.5), "layers[0].rank must be a whole number"),
        (lambda c: c["layers"][0].update(impact_method="guess"), "must be one of 'adjoint'"),
        (lambda c: c["layers"][0].update(outputs="y"), "layers[0].outputs must be an array"),
        (lambda c: c["layers"][0].update(outputs=[1]), "layers[0].outputs[0] must be text"),
        (lambda c: c["conditions"]["versions"][0].pop(), "versions[0] must be an array of 2"),
        (lambda c: c.update(model=[]), "model must be an object"),
        (lambda c: c.update(stability="none"), "stability must be a number"),
    ],
)
def test_a_malformed_file_is_refused_by_name_of_the_field(saved, change, message):
    rewrite(saved, change)

    with pytest.raises(ValueError, match=re.escape(message)):
        load_ranking(saved)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "rank,name\n1,a\n", '{"schema_version": NaN}', "\0"]
)
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    path = tmp_path / "ranking.json"
    path.write_text(text)

    with pytest.raises(ValueError, match="is not a ranking that can be read"):
        load_ranking(path)


def test_a_number_beyond_the_range_of_floats_is_refused(saved):
    saved.write_text(saved.read_text().replace('"forecast": 0.0119', '"forecast": 1e999'))

    with pytest.raises(ValueError, match="forecast must be a number"):
        load_ranking(saved)


def test_keys_of_a_later_program_are_ignored(saved):
    rewrite(saved, lambda content: content["layers"][0].update(colour="red"))

    assert load_ranking(saved) == troubled_ranking()


def test_a_field_with_a_default_may_be_missing(saved):
    rewrite(saved, lambda content: [layer.pop("flops") for layer in content["layers"]])

    assert load_ranking(saved) == troubled_ranking()


def test_whole_numbers_are_read_as_floats_where_floats_are_meant(saved):
    rewrite(saved, lambda content: content["layers"][0].update(impact=1))

    impact = load_ranking(saved).layers[0].impact

    assert impact == 1.0
    assert type(impact) is float


def test_the_document_lists_the_fields_of_the_records_in_their_order():
    documented = re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    sections = [
        Ranking,
        records.ModelIdentity,
        records.RunConditions,
        records.OutputError,
        records.OutputDivergence,
        RankedLayer,
        records.UnmeasuredLayer,
        records.NonFiniteOrigin,
        records.Decision,
        records.MeasuredSet,
        records.SelectionCost,
        records.Remedy,
        records.HeldOut,
        records.Outcome,
        records.Judgement,
        records.Criterion,
    ]

    fields = [field.name for record in sections for field in dataclasses.fields(record)]

    assert documented == ["schema_version", *fields]
    assert f"schema version {SCHEMA_VERSION}" in DOCUMENT.read_text()


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("impact", -1e308, "impact must not be negative"),
        ("weight_share", 1e308, "weight_share must be from 0 to 1"),
        ("weight_share", -0.5, "weight_share must be from 0 to 1"),
        ("readers", [["b", 1.5]], r"readers\[0\] must be from 0 to 1"),
    ],
)
def test_shares_that_are_none_are_refused(tmp_path, field, value, problem):
    path = tmp_path / "ranking.json"
    save_ranking(make_ranking(make_layer(1, "a"), make_layer(2, "b")), path)
    content = json.loads(path.read_text())
    content["layers"][0][field] = value
    path.write_text(json.dumps(content))

    with pytest.raises(ValueError, match=rf"layers\[0\]\.{problem}"):
        load_ranking(path)


@pytest.mark.parametrize("field", ["impact", "max_abs", "max_abs_input"])
def test_the_largest_numbers_of_a_file_can_be_forecast_and_drawn(field):
    ranking = make_ranking(make_layer(1, "a", **{field: 1e308}), make_layer(2, "b"))
    forecast = SetForecast(ranking.layers)

    assert np.isfinite(forecast.error(forecast.mask([])))
    (low, high), _ = magnitude_axis(map(largest_magnitude, ranking.layers), FP16)
    assert 0.0 < low < high < np.inf
