"""What all charts have in common: frames, axes, and the colours of kinds.

Colours are not set here: a tag `property=--name` on a model asks the page to set the property to
the value of its CSS variable, so that one file is right in light and dark.
"""

from __future__ import annotations

import math
from typing import Any, Final

from bokeh.models import (
    BoxAnnotation,
    BoxZoomTool,
    CategoricalColorMapper,
    FixedTicker,
    Range1d,
)
from bokeh.plotting import figure

from polygraphy_layerprec.report.broken_axis import BrokenAxis
from polygraphy_layerprec.report.kind_styles import KIND_STYLES
from polygraphy_layerprec.report.series import powers_of_ten

__all__ = ["MARGIN", "draw_breaks", "draw_frame", "kind_colors", "log_range", "power_ticker"]

MARGIN: Final = 0.04
"""Share of an axis that is added at its ends, so that no dot is cut off."""

_HALF_GAP: Final = 1.4  # a factor, as the axis is logarithmic
_LEFT_BORDER: Final = 62  # the charts stand above each other, so their frames line up


def draw_frame(
    name: str,
    x_range: Range1d,
    ends: tuple[float, float] | BrokenAxis,
    height: int,
    *,
    scale: str,
    x_scale: str = "linear",
) -> figure:
    """Returns an empty chart as wide as its place in the page.

    Args:
        name: What its place in the page goes by.
        x_range: The axis along it.
        ends: The ends of the axis up it, powers of ten if it is logarithmic; or that axis.
        height: Height in pixels.
        scale: `log` or `linear`, of the axis up it.
        x_scale: The same of the axis along it.
    """
    broken = ends if isinstance(ends, BrokenAxis) else None
    ends = ends.drawn if isinstance(ends, BrokenAxis) else ends
    zoom = BoxZoomTool(dimensions="width")
    zoom.overlay.tags = ["fill_color=--accent", "line_color=--accent"]
    chart = figure(
        name=name,
        x_range=x_range,
        x_axis_type=x_scale,
        y_range=log_range(ends) if scale == "log" else Range1d(*ends, bounds=ends),
        y_axis_type=scale,
        height=height,
        sizing_mode="stretch_width",
        toolbar_location=None,
        tools=[zoom],
        min_border_left=_LEFT_BORDER,
        min_border_right=12,
    )
    chart.title = None
    chart.outline_line_color = None
    chart.xgrid.visible = False
    if scale == "log":
        chart.yaxis.ticker = chart.ygrid.ticker = power_ticker(ends)
    if broken is not None:
        draw_breaks(chart, broken)
    _tag_for_painting(chart)
    return chart


def draw_breaks(chart: figure, axis: BrokenAxis, *, along: bool = False) -> None:
    """Names the strips beyond a logarithmic axis, and draws what separates them from it.

    Args:
        chart: The chart, whose axis has a `power_ticker` of all that is drawn.
        axis: The axis.
        along: Whether it is the axis along the chart, not the one up it.
    """
    drawn = chart.xaxis if along else chart.yaxis
    drawn.major_label_overrides = {
        tick: axis.labels[place]
        for tick in drawn[0].ticker.ticks
        for place in axis.labels
        if math.isclose(tick, place)
    }
    first, last = ("left", "right") if along else ("bottom", "top")
    for location in axis.breaks:
        gap = BoxAnnotation(
            **{first: location / _HALF_GAP, last: location * _HALF_GAP},
            fill_alpha=1.0,
            line_alpha=0.0,
            level="glyph",
            tags=["fill_color=--page"],
        )
        chart.add_layout(gap)


def power_ticker(ends: tuple[float, float]) -> FixedTicker:
    """Returns ticks at the powers of ten of a logarithmic axis."""
    return FixedTicker(ticks=list(powers_of_ten(ends)), minor_ticks=[])


def log_range(ends: tuple[float, float], **options: Any) -> Range1d:
    """Returns the range of a logarithmic axis with a margin at both ends."""
    factor = (ends[1] / ends[0]) ** MARGIN
    start, end = ends[0] / factor, ends[1] * factor
    return Range1d(start, end, bounds=(start, end), **options)


def kind_colors() -> dict[str, Any]:
    """Returns the colour of a dot by its kind of trouble, from the column `kind`."""
    kinds = list(KIND_STYLES)
    tags = [f"palette={','.join('--' + kind.replace(' ', '-') for kind in kinds)}"]
    mapper = CategoricalColorMapper(factors=kinds, palette=["gray"] * len(kinds), tags=tags)
    return {"field": "kind", "transform": mapper}


def _tag_for_painting(chart: figure) -> None:
    # The panel shows through: what Bokeh fills leaves a line of half a pixel along the edges.
    chart.background_fill_alpha = chart.border_fill_alpha = 0.0
    for axis in chart.axis:
        axis.minor_tick_line_color = None
        axis.tags = [
            "axis_line_color=--line",
            "major_tick_line_color=--line",
            "major_label_text_color=--muted",
        ]
    for grid in chart.ygrid:
        grid.tags = ["grid_line_color=--line"]
