"""What is drawn, read from the figures."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from bokeh.models import BoxAnnotation, Span
from matplotlib.lines import Line2D

from polygraphy_layerprec.ranking.agreement import compare_rankings
from polygraphy_layerprec.records import (
    Criterion,
    CurvePoint,
    Judgement,
    Outcome,
    SelectionCost,
)
from polygraphy_layerprec.report.html.agreement_chart import draw_agreement
from polygraphy_layerprec.report.html.ranking_charts import DEPTH_AXES, draw_ranking
from polygraphy_layerprec.report.kind_styles import KIND_STYLES
from tests.rankings import make_layer
from tests.report_models import decided_report, make_report, plain_layers

STYLE_SHEET = (
    resources.files("polygraphy_layerprec.report.html") / "templates" / "report.css"
).read_text(encoding="utf-8")

# Bokeh's markers that are lines alone: without an outline nothing is drawn of them.
LINES = {"asterisk", "cross", "dash", "x", "y"}


def source_of(chart, name="layers"):
    (found,) = {r.data_source for r in chart.renderers if r.data_source.name == name}
    return found.data


def test_dots_stand_at_their_place_in_execution_order():
    charts = draw_ranking(make_report())

    data = source_of(charts["impact"])

    np.testing.assert_array_equal(data["depth"], [4, 3, 2, 1])
    np.testing.assert_allclose(data["impact"], [1e-1, 1e-2, 1e-3, 1e-4])
    np.testing.assert_allclose(data["introduced"], [2.0**-11 / rank for rank in range(1, 5)])
    assert data["status"] == ["fp32", "lowered", "lowered", "lowered"]


def test_the_charts_along_the_depth_share_layers_and_zoom():
    charts = draw_ranking(make_report())

    along = [charts[name] for name in DEPTH_AXES]

    assert len({id(chart.x_range) for chart in along}) == 1
    assert len({id(source_of(chart)) for chart in along}) == 1
    for name, axes in DEPTH_AXES.items():
        assert {renderer.name for renderer in charts[name].renderers} >= set(axes.y)


def test_an_overflow_stands_at_the_top_whatever_its_impact():
    layers = [
        make_layer(1, "a", overflow=True, kind="overflow", impact=1e-12),
        make_layer(2, "b", impact=0.02),
    ]

    data = source_of(draw_ranking(make_report(*layers))["impact"])

    np.testing.assert_allclose(data["impact"], [1.0, 0.02])  # a decade beyond 0.1
    assert data["marker"] == ["triangle", "circle"]


@pytest.mark.parametrize("largest", [3.4e38, np.inf])
def test_what_is_beyond_an_axis_stands_in_a_strip_with_a_name(largest):
    layers = [make_layer(1, "a", max_abs=largest), make_layer(2, "b", max_abs=12.0)]

    chart = draw_ranking(make_report(*layers))["magnitudes"]

    place, inside = source_of(chart)["magnitude"]
    assert (place, inside) == pytest.approx((1e8, 12.0))
    (tick,) = [t for t, word in chart.yaxis[0].major_label_overrides.items() if word == "more"]
    assert tick == pytest.approx(place)


def test_an_impact_of_zero_stands_below_a_break():
    layers = [make_layer(1, "a", impact=0.02), make_layer(2, "b", impact=0.0)]

    chart = draw_ranking(make_report(*layers))["impact"]

    assert source_of(chart)["impact"] == pytest.approx([0.02, 1e-3])
    assert list(chart.yaxis[0].major_label_overrides.values()) == ["0"]


def test_what_cannot_be_compared_is_not_drawn():
    layers = [make_layer(1, "a", cumulative_error=None), make_layer(2, "b", cumulative_error=0.5)]

    data = source_of(draw_ranking(make_report(*layers))["errors"])

    assert np.isnan(data["cumulative"][0])
    assert data["cumulative"][1] == 0.5


def test_an_unknown_kind_is_drawn_as_a_circle():
    data = source_of(draw_ranking(make_report(make_layer(1, "a", kind="novel")))["impact"])

    assert data["marker"] == ["circle"]


def test_every_second_block_is_shaded():
    layers = [make_layer(1, str(i), graph_index=i, block=b) for i, b in enumerate("aabbba")]

    chart = draw_ranking(make_report(*layers))["impact"]

    (bands,) = [r.data_source.data for r in chart.renderers if "left" in r.data_source.data]
    assert (list(bands["left"]), list(bands["right"])) == ([2.5], [5.5])


def test_the_curve_shows_forecast_measured_and_chosen():
    points = tuple(
        CurvePoint(count, error, measured, SelectionCost(count, 0.0, 0))
        for count, error, measured in ((0, 1e-2, 2e-2), (2, 1e-3, None), (4, 0.0, 1e-4))
    )
    report = replace(make_report(), curve=points)

    chart = draw_ranking(report)["curve"]

    assert source_of(chart, "forecast")["x"] == [0, 2, 4]
    assert source_of(chart, "measured")["x"] == [0, 4]
    assert source_of(chart, "measured")["y"] == [2e-2, 1e-4]
    assert source_of(chart, "chosen")["x"] == [1]
    assert source_of(chart, "chosen")["y"] == pytest.approx([report.selection.forecast_error])


def test_a_curve_without_measurements_has_one_line():
    chart = draw_ranking(make_report())["curve"]

    names = {r.data_source.name for r in chart.renderers}
    assert names == {"forecast", "forecast line", "chosen"}


def test_the_curve_of_a_decision_has_its_sets_and_no_line_to_zero():
    report = decided_report()
    chosen = report.selection.decision.sets[report.selection.decision.chosen - 1]

    chart = draw_ranking(report)["curve"]

    assert {r.data_source.name for r in chart.renderers} == {"measured", "measured line", "chosen"}
    sets = report.selection.decision.sets
    assert sorted(source_of(chart, "measured")["x"]) == sorted(s.cost.layer_count for s in sets)
    assert source_of(chart, "chosen")["x"] == [chosen.cost.layer_count]
    assert source_of(chart, "chosen")["y"] == [chosen.outcome.error]
    (limit,) = [span.location for span in chart.select({"type": Span}) if span.location]
    assert limit == chosen.outcome.headline.criterion.threshold


def test_a_similarity_is_drawn_as_the_error_that_passes():
    criterion = Criterion("cosine similarity", 0.99, higher_is_better=True)
    report = decided_report()
    sets = tuple(
        replace(found, outcome=Outcome(0.1, (Judgement(criterion, value, excess),)))
        for found, value, excess in zip(
            report.selection.decision.sets, (0.5, 0.999), (50.0, 0.1), strict=True
        )
    )
    decision = replace(report.selection.decision, sets=sets, lowered=sets[0].outcome)
    report = replace(report, selection=replace(report.selection, decision=decision))

    chart = draw_ranking(report)["curve"]

    assert source_of(chart, "measured")["y"] == [50.0, 0.1]
    (limit,) = [span.location for span in chart.select({"type": Span}) if span.location]
    assert limit == 1.0


def test_colours_are_asked_for_and_not_set():
    charts = draw_ranking(make_report())

    for chart in charts.values():
        assert chart.background_fill_alpha == chart.border_fill_alpha == 0.0
        assert all("major_label_text_color=--muted" in axis.tags for axis in chart.axis)


def test_impacts_of_two_rankings_are_drawn_against_each_other():
    first = make_report(*plain_layers()).ranking
    second = make_report(*(replace(layer, impact=2e-3) for layer in plain_layers())).ranking
    agreement = compare_rankings(first, second, first_label="a", second_label="b")

    data = source_of(draw_agreement(agreement)["agreement"])

    places = dict(zip(data["first_impact"], data["second_impact"], strict=True))
    assert places == pytest.approx({1e-1: 2e-3, 1e-2: 2e-3, 1e-3: 2e-3, 1e-4: 2e-3})


def test_what_loses_values_stands_beyond_all_impacts_in_either_ranking():
    calm = make_report(*plain_layers()).ranking
    layers = plain_layers()
    lossy = (replace(layers[0], overflow=True, kind="overflow", impact=1e-12), *layers[1:])
    agreement = compare_rankings(
        calm, make_report(*lossy).ranking, first_label="a", second_label="b"
    )

    chart = draw_agreement(agreement)["agreement"]

    data = source_of(chart)
    place = list(data["first_impact"]).index(layers[0].impact)
    assert data["second_impact"][place] == max(data["second_impact"]) > 10 * layers[0].impact
    assert data["marker"][place] == "triangle"
    back = compare_rankings(make_report(*lossy).ranking, calm, first_label="b", second_label="a")
    assert "triangle" in source_of(draw_agreement(back)["agreement"])["marker"]
    for axis in (*chart.xaxis, *chart.yaxis):
        assert "NaN/Inf" in axis.major_label_overrides.values()
    gaps = chart.select({"type": BoxAnnotation})
    assert len([gap for gap in gaps if isinstance(gap.left, float) and gap.right > gap.left]) == 1
    assert len([gap for gap in gaps if isinstance(gap.top, float) and gap.top > gap.bottom]) == 1


@pytest.mark.parametrize("kind", KIND_STYLES)
def test_a_kind_has_a_filled_shape_and_a_colour_in_light_and_in_dark(kind):
    name = kind.replace(" ", "-")

    assert KIND_STYLES[kind].bokeh not in LINES
    assert KIND_STYLES[kind].matplotlib in Line2D.filled_markers
    assert STYLE_SHEET.count(f" --{name}:") == 2
    assert kind == "rounding" or f".swatch.{name} " in STYLE_SHEET
