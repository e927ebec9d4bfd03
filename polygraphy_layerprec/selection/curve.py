"""Output error against the number of layers in FP32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from polygraphy_layerprec.precision import QDQ
from polygraphy_layerprec.records import CurvePoint
from polygraphy_layerprec.selection.forecast import SetForecast

if TYPE_CHECKING:
    from polygraphy_layerprec.records import Ranking
    from polygraphy_layerprec.selection.search import ErrorOf

__all__ = ["error_curve"]

_POINTS: Final = 9


def error_curve(ranking: Ranking, *, measure: ErrorOf | None = None) -> tuple[CurvePoint, ...]:
    """Returns a handful of points from no layer in FP32 to all, closer together at the start.

    Args:
        ranking: The ranked layers.
        measure: Gives the output error of a set, as a mask over `ranking.layers`.
    """
    forecast = SetForecast(ranking.layers, has_casts=ranking.precision != QDQ.name)
    count = len(ranking.layers)
    sizes = np.unique(np.rint(count * np.linspace(0.0, 1.0, _POINTS) ** 2).astype(int))
    points = []
    for size in sizes:
        kept = np.arange(count) < size
        points.append(
            CurvePoint(
                layer_count=int(size),
                forecast_error=forecast.error(kept),
                measured_error=None if measure is None else measure(kept),
                cost=forecast.cost(kept),
            )
        )
    return tuple(points)
