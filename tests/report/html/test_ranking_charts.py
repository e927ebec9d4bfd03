"""What is drawn, read from the figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from polygraphy_layerprec.ranking.agreement import compare_rankings
from polygraphy_layerprec.records import CurvePoint, SelectionCost
from polygraphy_layerprec.report.html.agreement_chart import draw_agreement
from polygraphy_layerprec.report.html.ranking_charts import DEPTH_AXES, draw_ranking
from tests.rankings import make_layer
from tests.report_models import make_report, plain_layers


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

    np.testing.assert_allclose(data["impact"], [0.1, 0.02])
    assert data["marker"] == ["triangle", "circle"]


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

    assert {r.data_source.name for r in chart.renderers} == {"forecast", "chosen"}


def test_colours_are_asked_for_and_not_set():
    charts = draw_ranking(make_report())

    for chart in charts.values():
        assert "background_fill_color=--panel" in chart.tags
        assert all("major_label_text_color=--muted" in axis.tags for axis in chart.axis)


def test_impacts_of_two_rankings_are_drawn_against_each_other():
    first = make_report(*plain_layers()).ranking
    second = make_report(*(replace(layer, impact=2e-3) for layer in plain_layers())).ranking
    agreement = compare_rankings(first, second, first_label="a", second_label="b")

    data = source_of(draw_agreement(agreement)["agreement"])

    places = dict(zip(data["first_impact"], data["second_impact"], strict=True))
    assert places == pytest.approx({1e-1: 2e-3, 1e-2: 2e-3, 1e-3: 2e-3, 1e-4: 2e-3})
