"""Points of output error against layers in FP32."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.selection import error_curve
from tests.layer_graphs import chain_of
from tests.rankings import make_ranking


def test_the_curve_goes_from_no_layer_to_all_along_the_ranking():
    layers = chain_of(*np.linspace(1.0, 0.1, 20), weight_share=1.0)

    points = error_curve(make_ranking(*layers))

    counts = [point.layer_count for point in points]
    assert counts == [0, 1, 3, 5, 8, 11, 15, 20]  # 20 (n/8)^2, without repetition
    for point in points:
        rest = [layer.impact**2 for layer in layers[point.layer_count :]]
        assert point.forecast_error == pytest.approx(np.sqrt(sum(rest)))
        assert point.measured_error is None
        assert point.cost.layer_count == point.layer_count
    assert [point.cost.cast_count for point in points] == [0, *[1] * 6, 0]


def test_each_point_is_measured_once():
    asked = []

    def measure(kept):
        asked.append(kept.tolist())
        return float(kept.sum())

    points = error_curve(make_ranking(*chain_of(3.0, 2.0)), measure=measure)

    assert asked == [[False, False], [True, False], [True, True]]
    assert [point.measured_error for point in points] == [0.0, 1.0, 2.0]
