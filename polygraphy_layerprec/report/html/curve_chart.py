"""The chart of errors against layers in FP32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bokeh.models import ColumnDataSource, Range1d, Span

from polygraphy_layerprec.report.broken_axis import break_axis
from polygraphy_layerprec.report.error_curve import curve_of_report
from polygraphy_layerprec.report.html.chart_frame import draw_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bokeh.plotting import figure as Figure  # noqa: N812 - a class by all but its name

    from polygraphy_layerprec.report.broken_axis import BrokenAxis
    from polygraphy_layerprec.report.error_curve import CurveDot
    from polygraphy_layerprec.report.ranking_report import RankingReport

__all__ = ["draw_curve"]


def draw_curve(report: RankingReport) -> Figure:
    """Returns the sets that were measured, the chosen one and the criterion; or the forecast."""
    curve = curve_of_report(report)
    everything = [*curve.dots, curve.chosen]
    axis = break_axis([*(dot.error for dot in everything), curve.limit])
    most = max(1, *(dot.layer_count for dot in everything))
    counts = Range1d(-0.02 * most, 1.02 * most, bounds="auto")
    chart = draw_frame("curve", counts, axis, 280, scale="log")
    if curve.limit is not None:
        _draw_limit(chart, curve.limit)
    for which in ("forecast", "measured"):
        _draw_line(chart, [dot for dot in curve.dots if dot.how == which], which, axis)
    _draw_chosen(chart, curve.chosen, axis)
    return chart


def _draw_line(chart: Figure, dots: Sequence[CurveDot], which: str, axis: BrokenAxis) -> None:
    """Dots, and a line between those that stand on the axis: none leads across its breaks."""
    if not dots:
        return
    on_axis = [dot for dot in dots if axis.reaches(dot.error)]
    dash = "dashed" if which == "forecast" else "solid"
    line = chart.line(
        "x", "y", source=_source(on_axis, axis, f"{which} line"), line_width=2, line_dash=dash
    )
    line.glyph.tags = [f"line_color=--{which}"]
    marks = chart.scatter("x", "y", source=_source(dots, axis, which), size=8, line_width=2)
    marks.glyph.tags = [f"line_color=--{which}", "fill_color=--panel"]


def _draw_chosen(chart: Figure, dot: CurveDot, axis: BrokenAxis) -> None:
    star = chart.scatter(
        "x",
        "y",
        source=_source([dot], axis, "chosen"),
        marker="star",
        size=20,
        line_width=1.0,
        level="overlay",
    )
    star.glyph.tags = ["line_color=--ink", "fill_color=--chosen"]


def _draw_limit(chart: Figure, limit: float) -> None:
    line = Span(
        location=limit,
        dimension="width",
        line_width=1.5,
        line_dash="dotted",
        tags=["line_color=--tolerance"],
    )
    chart.add_layout(line)


def _source(dots: Sequence[CurveDot], axis: BrokenAxis, name: str) -> ColumnDataSource:
    data = {
        "x": [dot.layer_count for dot in dots],
        "y": [axis.place(dot.error) for dot in dots],
    }
    return ColumnDataSource(data, name=name)
