"""The impacts of two rankings against each other, drawn with Bokeh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from bokeh.models import ColumnDataSource, Span

from polygraphy_layerprec.report.html.bokeh_embedding import ChartAxes
from polygraphy_layerprec.report.html.chart_frame import (
    KIND_MARKERS,
    draw_frame,
    kind_colors,
    log_range,
    power_ticker,
)
from polygraphy_layerprec.report.series import log_axis, on_log_axis

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812 - a class by all but its name

    from polygraphy_layerprec.records import RankingAgreement

__all__ = ["AGREEMENT_AXES", "draw_agreement"]

AGREEMENT_AXES: Final = {"agreement": ChartAxes("first_impact", ("second_impact",))}
"""The chart, by name."""


def draw_agreement(agreement: RankingAgreement) -> dict[str, Figure]:
    """Returns the chart by its name: a dot for each layer of both rankings."""
    moves = agreement.layers
    ends = log_axis(impact for move in moves for impact in (move.first_impact, move.second_impact))
    chart = draw_frame(
        "agreement", log_range(ends, name="along"), ends, 420, scale="log", x_scale="log"
    )
    chart.xaxis.ticker = power_ticker(ends)
    chart.line(list(ends), list(ends), line_dash="dashed", line_width=1.5).glyph.tags = [
        "line_color=--muted"
    ]
    data = {
        "first_impact": np.array([on_log_axis(move.first_impact, ends) for move in moves]),
        "second_impact": np.array([on_log_axis(move.second_impact, ends) for move in moves]),
        "kind": [move.second_kind for move in moves],
        "marker": [KIND_MARKERS.get(move.second_kind, "circle") for move in moves],
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
