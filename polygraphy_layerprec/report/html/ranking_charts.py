"""The charts of a ranking, drawn with Bokeh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from bokeh.models import (
    BoxAnnotation,
    CDSView,
    ColumnDataSource,
    GroupFilter,
    NumeralTickFormatter,
    Range1d,
    Span,
)

from polygraphy_layerprec.precision import QDQ, precision_named
from polygraphy_layerprec.report.broken_axis import BrokenAxis, break_axis
from polygraphy_layerprec.report.html.bokeh_embedding import ChartAxes
from polygraphy_layerprec.report.html.chart_frame import (
    MARGIN,
    draw_frame,
    kind_colors,
)
from polygraphy_layerprec.report.html.curve_chart import draw_curve
from polygraphy_layerprec.report.kind_styles import KIND_STYLES, drawn_kind
from polygraphy_layerprec.report.series import (
    block_runs,
    execution_positions,
    finite_impact,
    largest_magnitude,
    magnitude_axis,
    underflow_fraction,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bokeh.plotting import figure as Figure  # noqa: N812 - a class by all but its name

    from polygraphy_layerprec.precision import Precision
    from polygraphy_layerprec.records import RankedLayer
    from polygraphy_layerprec.report.ranking_report import RankingReport

__all__ = ["DEPTH_AXES", "draw_ranking"]

DEPTH_AXES: Final = {
    "impact": ChartAxes("depth", ("impact",), 0.04),
    "errors": ChartAxes("depth", ("introduced", "cumulative"), 0.04),
    "magnitudes": ChartAxes("depth", ("magnitude",), 0.04),
    "underflow": ChartAxes("depth", ("underflow",), 0.04),
}
"""The charts along the depth, by name."""


def draw_ranking(report: RankingReport) -> dict[str, Figure]:
    """Returns a figure for each chart, by the name of its place in the page.

    There is none about underflow of the pairs of a quantised model.
    """
    layers = report.ranking.layers
    depth = Range1d(0.0, len(layers) + 1.0, bounds=(0.0, len(layers) + 1.0), name="along")
    source = _layer_source(report)
    precision = precision_named(report.ranking.precision)
    charts = {
        "impact": _draw_impact(layers, source, depth),
        "errors": _draw_errors(layers, source, depth),
        "magnitudes": _draw_magnitudes(layers, source, depth, precision),
    }
    if precision != QDQ:  # whose values stay in FP32's range
        charts["underflow"] = _draw_underflow(layers, source, depth)
    return {**charts, "curve": draw_curve(report)}


def _layer_source(report: RankingReport) -> ColumnDataSource:
    """One row for each layer in the ranking's order, shared by the charts along the depth."""
    layers = report.ranking.layers
    kept = {layer.name for layer in report.selection.layers}
    impacts = _impact_axis(layers)
    errors = _error_axis(layers)
    magnitudes = _magnitude_axis(layers, precision_named(report.ranking.precision))
    columns: dict[str, list[float]] = {
        "depth": [float(position) for position in execution_positions(layers)],
        "impact": [impacts.place(finite_impact(layer)) for layer in layers],
        "introduced": [errors.place(layer.introduced_error) for layer in layers],
        "cumulative": [errors.place(layer.cumulative_error) for layer in layers],
        "magnitude": [magnitudes.place(largest_magnitude(layer)) for layer in layers],
        "underflow": [underflow_fraction(layer) for layer in layers],
        "size": [_size(len(layers), is_kept=layer.name in kept) for layer in layers],
    }
    data: dict[str, Any] = {name: np.array(values) for name, values in columns.items()}
    data["kind"] = [drawn_kind(layer.kind, layer.lost) for layer in layers]
    data["marker"] = [KIND_STYLES[kind].bokeh for kind in data["kind"]]
    data["status"] = ["fp32" if layer.name in kept else "lowered" for layer in layers]
    return ColumnDataSource(data, name="layers")


def _size(count: int, *, is_kept: bool) -> float:
    plain = 7.0 if count <= 300 else 5.0 if count <= 1500 else 3.5
    return plain + 3.0 * is_kept


def _impact_axis(layers: Sequence[RankedLayer]) -> BrokenAxis:
    return break_axis(map(finite_impact, layers), beyond="NaN/Inf")


def _error_axis(layers: Sequence[RankedLayer]) -> BrokenAxis:
    errors = [layer.introduced_error for layer in layers]
    return break_axis([*errors, *(layer.cumulative_error for layer in layers)], beyond="more")


def _magnitude_axis(layers: Sequence[RankedLayer], precision: Precision) -> BrokenAxis:
    magnitudes = [largest_magnitude(layer) for layer in layers]
    ends, _ = magnitude_axis(magnitudes, precision)
    return break_axis(magnitudes, ends=ends, beyond="more")


def _draw_impact(layers: Sequence[RankedLayer], source: ColumnDataSource, depth: Range1d) -> Figure:
    chart = _depth_chart("impact", layers, depth, _impact_axis(layers), 250)
    _draw_stems(chart, source)
    _draw_dots(chart, source, "impact", marker="marker", color=kind_colors())
    return chart


def _draw_errors(layers: Sequence[RankedLayer], source: ColumnDataSource, depth: Range1d) -> Figure:
    chart = _depth_chart("errors", layers, depth, _error_axis(layers), 200)
    _draw_dots(chart, source, "cumulative", marker="circle", tag="--cumulative")
    _draw_dots(chart, source, "introduced", marker="circle", tag="--introduced")
    return chart


def _draw_magnitudes(
    layers: Sequence[RankedLayer], source: ColumnDataSource, depth: Range1d, precision: Precision
) -> Figure:
    axis = _magnitude_axis(layers, precision)
    shows_limit = axis.drawn[1] > precision.max_finite
    chart = _depth_chart("magnitudes", layers, depth, axis, 200)
    if shows_limit:
        beyond = BoxAnnotation(
            bottom=precision.max_finite,
            fill_alpha=0.12,
            line_alpha=0.0,
            level="underlay",
            tags=["fill_color=--overflow"],
        )
        limit = Span(
            location=precision.max_finite,
            dimension="width",
            line_width=1.5,
            tags=["line_color=--overflow"],
        )
        chart.add_layout(beyond)
        chart.add_layout(limit)
    _draw_dots(chart, source, "magnitude", marker="marker", color=kind_colors())
    return chart


def _draw_underflow(
    layers: Sequence[RankedLayer], source: ColumnDataSource, depth: Range1d
) -> Figure:
    most = max((underflow_fraction(layer) for layer in layers), default=0.0)
    top = min(1.0, max(1.2 * most, 0.01))
    chart = _depth_chart("underflow", layers, depth, (-MARGIN * top, top), 130, scale="linear")
    chart.yaxis.formatter = NumeralTickFormatter(format="0 %" if top > 0.04 else "0.0 %")
    chart.yaxis.ticker.desired_num_ticks = 3
    _draw_dots(chart, source, "underflow", marker="marker", color=kind_colors())
    return chart


def _draw_stems(chart: Figure, source: ColumnDataSource) -> None:
    """Lines down from what stays in FP32, so that it stands out among thousands of dots."""
    kept = CDSView(filter=GroupFilter(column_name="status", group="fp32"))
    bottom = chart.y_range.start
    stems = chart.segment(
        "depth", bottom, "depth", "impact", source=source, view=kept, line_width=1.5, line_alpha=0.6
    )
    stems.glyph.tags = ["line_color=--chosen"]


def _draw_dots(
    chart: Figure,
    source: ColumnDataSource,
    column: str,
    *,
    marker: str,
    color: Any = None,
    tag: str = "",
) -> None:
    dots = chart.scatter(
        "depth",
        column,
        source=source,
        marker=marker,
        size="size",
        line_color=None,
        fill_alpha=0.85,
        **({} if color is None else {"fill_color": color}),
        name=column,
    )
    dots.nonselection_glyph = None
    if tag:
        dots.glyph.tags = [f"fill_color={tag}"]


def _depth_chart(
    name: str,
    layers: Sequence[RankedLayer],
    depth: Range1d,
    ends: tuple[float, float] | BrokenAxis,
    height: int,
    *,
    scale: str = "log",
) -> Figure:
    chart = draw_frame(name, depth, ends, height, scale=scale)
    shaded = block_runs(layers)[1::2]
    bands = chart.quad(
        left=[run.first - 0.5 for run in shaded],
        right=[run.last + 0.5 for run in shaded],
        bottom=[chart.y_range.start] * len(shaded),
        top=[chart.y_range.end] * len(shaded),
        line_color=None,
        level="underlay",
    )
    bands.glyph.tags = ["fill_color=--band"]
    here = Span(
        dimension="height", location=None, line_width=1, name="here", tags=["line_color=--accent"]
    )
    chart.add_layout(here)
    return chart
