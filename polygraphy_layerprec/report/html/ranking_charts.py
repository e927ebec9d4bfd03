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

from polygraphy_layerprec.precision import PRECISIONS
from polygraphy_layerprec.report.html.bokeh_embedding import ChartAxes
from polygraphy_layerprec.report.html.chart_frame import (
    KIND_MARKERS,
    MARGIN,
    draw_frame,
    kind_colors,
)
from polygraphy_layerprec.report.series import (
    block_runs,
    execution_positions,
    largest_magnitude,
    log_axis,
    magnitude_axis,
    on_log_axis,
    underflow_fraction,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bokeh.plotting import figure as Figure  # noqa: N812 - a class by all but its name

    from polygraphy_layerprec.precision import Precision
    from polygraphy_layerprec.records import CurvePoint, RankedLayer
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
    """Returns a figure for each chart, by the name of its place in the page."""
    layers = report.ranking.layers
    depth = Range1d(0.0, len(layers) + 1.0, bounds=(0.0, len(layers) + 1.0), name="along")
    source = _layer_source(report)
    precision = PRECISIONS[report.ranking.precision]
    return {
        "impact": _draw_impact(layers, source, depth),
        "errors": _draw_errors(layers, source, depth),
        "magnitudes": _draw_magnitudes(layers, source, depth, precision),
        "underflow": _draw_underflow(layers, source, depth),
        "curve": _draw_curve(report),
    }


def _layer_source(report: RankingReport) -> ColumnDataSource:
    """One row for each layer in the ranking's order, shared by the charts along the depth."""
    layers = report.ranking.layers
    kept = {layer.name for layer in report.selection.layers}
    impacts = log_axis(layer.impact for layer in layers)
    errors = _error_axis(layers)
    magnitudes, _ = magnitude_axis(
        map(largest_magnitude, layers), PRECISIONS[report.ranking.precision]
    )
    columns: dict[str, list[float]] = {
        "depth": [float(position) for position in execution_positions(layers)],
        # What overflows has an impact beyond all forecasts: it stands at the top.
        "impact": [
            impacts[1] if layer.overflow else on_log_axis(layer.impact, impacts) for layer in layers
        ],
        "introduced": [on_log_axis(layer.introduced_error, errors) for layer in layers],
        "cumulative": [on_log_axis(layer.cumulative_error, errors) for layer in layers],
        "magnitude": [on_log_axis(largest_magnitude(layer), magnitudes) for layer in layers],
        "underflow": [underflow_fraction(layer) for layer in layers],
        "size": [_size(len(layers), is_kept=layer.name in kept) for layer in layers],
    }
    data: dict[str, Any] = {name: np.array(values) for name, values in columns.items()}
    data["kind"] = [layer.kind for layer in layers]
    data["marker"] = [KIND_MARKERS.get(layer.kind, "circle") for layer in layers]
    data["status"] = ["fp32" if layer.name in kept else "lowered" for layer in layers]
    return ColumnDataSource(data, name="layers")


def _size(count: int, *, is_kept: bool) -> float:
    plain = 7.0 if count <= 300 else 5.0 if count <= 1500 else 3.5
    return plain + 3.0 * is_kept


def _error_axis(layers: Sequence[RankedLayer]) -> tuple[float, float]:
    errors = [layer.introduced_error for layer in layers]
    return log_axis([*errors, *(layer.cumulative_error for layer in layers)])


def _draw_impact(layers: Sequence[RankedLayer], source: ColumnDataSource, depth: Range1d) -> Figure:
    chart = _depth_chart("impact", layers, depth, log_axis(layer.impact for layer in layers), 250)
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
    ends, shows_limit = magnitude_axis(map(largest_magnitude, layers), precision)
    chart = _depth_chart("magnitudes", layers, depth, ends, 200)
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


def _draw_curve(report: RankingReport) -> Figure:
    points, selection = report.curve, report.selection
    found = selection.measured_error
    chosen = selection.forecast_error if found is None else found
    errors = [error for point in points for error in _errors_of(point)]
    tolerance = selection.tolerance
    ends = log_axis([*errors, chosen, tolerance])
    most = max((point.layer_count for point in points), default=1)
    counts = Range1d(-0.02 * most, 1.02 * most, bounds="auto")
    chart = draw_frame("curve", counts, ends, 280, scale="log")
    _draw_line(chart, points, "forecast", ends)
    if any(point.measured_error is not None for point in points):
        _draw_line(chart, points, "measured", ends)
    if tolerance is not None:
        _draw_level(chart, tolerance)
    choice = {"x": [selection.cost.layer_count], "y": [on_log_axis(chosen, ends)]}
    tags = ["line_color=--ink", "fill_color=--chosen"]
    chart.scatter(
        "x",
        "y",
        source=ColumnDataSource(choice, name="chosen"),
        marker="star",
        size=20,
        line_width=1.0,
        level="overlay",
    ).glyph.tags = tags
    return chart


def _errors_of(point: CurvePoint) -> tuple[float, ...]:
    measured = point.measured_error
    return (point.forecast_error,) if measured is None else (point.forecast_error, measured)


def _draw_line(
    chart: Figure, points: Sequence[CurvePoint], which: str, ends: tuple[float, float]
) -> None:
    errors = {
        point.layer_count: getattr(point, f"{which}_error")
        for point in points
        if getattr(point, f"{which}_error") is not None
    }
    data = {"x": list(errors), "y": [on_log_axis(error, ends) for error in errors.values()]}
    source = ColumnDataSource(data, name=which)
    dash = "dashed" if which == "forecast" else "solid"
    line = chart.line("x", "y", source=source, line_width=2, line_dash=dash)
    line.glyph.tags = [f"line_color=--{which}"]
    dots = chart.scatter("x", "y", source=source, size=7, line_width=2)
    dots.glyph.tags = [f"line_color=--{which}", "fill_color=--panel"]


def _draw_level(chart: Figure, error: float) -> None:
    chart.add_layout(
        Span(
            location=error,
            dimension="width",
            line_width=1.5,
            line_dash="dotted",
            tags=["line_color=--tolerance"],
        )
    )


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
    ends: tuple[float, float],
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
