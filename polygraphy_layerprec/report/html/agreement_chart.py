"""The impacts of two rankings against each other, drawn with Bokeh."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from bokeh.models import ColumnDataSource, Span

from polygraphy_layerprec.report.broken_axis import break_axis
from polygraphy_layerprec.report.html.bokeh_embedding import ChartAxes
from polygraphy_layerprec.report.html.chart_frame import (
    draw_breaks,
    draw_frame,
    kind_colors,
    log_range,
    power_ticker,
)
from polygraphy_layerprec.report.kind_styles import KIND_STYLES, drawn_kind

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812 - a class by all but its name

    from polygraphy_layerprec.records import LayerMove, RankingAgreement

__all__ = ["AGREEMENT_AXES", "draw_agreement"]

AGREEMENT_AXES: Final = {"agreement": ChartAxes("first_impact", ("second_impact",))}
"""The chart, by name."""


def draw_agreement(agreement: RankingAgreement) -> dict[str, Figure]:
    """Returns the chart by its name: a dot for each layer of both rankings."""
    moves = agreement.layers
    first = [math.inf if move.first_lost else move.first_impact for move in moves]
    second = [math.inf if move.second_lost else move.second_impact for move in moves]
    kinds = [_kind(move) for move in moves]
    axis = break_axis([*first, *second], beyond="NaN/Inf")
    along = log_range(axis.drawn, name="along")
    chart = draw_frame("agreement", along, axis, 420, scale="log", x_scale="log")
    chart.xaxis.ticker = power_ticker(axis.drawn)
    draw_breaks(chart, axis, along=True)
    chart.line(list(axis.ends), list(axis.ends), line_dash="dashed", line_width=1.5).glyph.tags = [
        "line_color=--muted"
    ]
    data = {
        "first_impact": np.array([axis.place(impact) for impact in first]),
        "second_impact": np.array([axis.place(impact) for impact in second]),
        "kind": kinds,
        "marker": [KIND_STYLES[kind].bokeh for kind in kinds],
    }
    chart.scatter(
        "first_impact",
        "second_impact",
        source=ColumnDataSource(data, name="layers"),
        marker="marker",
        size=7 if len(moves) <= 1500 else 4,
        line_color=None,
        fill_alpha=0.75,
        fill_color=kind_colors(),
    )
    here = Span(
        dimension="height", location=None, line_width=1, name="here", tags=["line_color=--accent"]
    )
    chart.add_layout(here)
    return {"agreement": chart}


def _kind(move: LayerMove) -> str:
    """How a layer is drawn: as the second ranking has it, unless only the first loses values."""
    if move.first_lost and not move.second_lost:
        return drawn_kind(move.first_kind, move.first_lost)
    return drawn_kind(move.second_kind, move.second_lost)
