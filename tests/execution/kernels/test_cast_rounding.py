"""Rounding by casts gives the bits of numpy's, weights beyond the range included."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.execution.kernels.cast_rounding import CastRounder
from polygraphy_layerprec.execution.kernels.node_session import tensor_of, value_of
from polygraphy_layerprec.precision import BF16, FP16
from polygraphy_layerprec.rounding import round_to_precision

LARGE = 1 << 15  # so large that casts are worth it


def values_with(largest: float) -> np.ndarray:
    values = np.linspace(-3.0, 3.0, LARGE, dtype=np.float32)
    values[[0, -1]] = -largest, largest
    return values


@pytest.mark.parametrize("precision", [FP16, BF16], ids=lambda precision: precision.name)
@pytest.mark.parametrize("largest", [3.0, 65504.0, 65519.0, 65520.0, 1e6, 3.3e38])
def test_large_weights_beyond_the_range_are_clipped(largest, precision):
    values = values_with(largest)
    expected = round_to_precision(values, precision, saturate=True)

    CastRounder(precision).round_weight(values, float(np.float32(largest)), out=values)

    assert np.array_equal(values, expected)
    assert np.isfinite(values).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [3, LARGE])
def test_weights_of_any_type_and_size_are_rounded(count, dtype):
    values = np.linspace(-1, 1, count).astype(dtype)
    expected = round_to_precision(values, FP16, saturate=True)

    CastRounder(FP16).round_weight(values, 1.0, out=values)

    assert np.array_equal(values, expected)
    assert values.dtype == dtype


def test_variables_beyond_the_range_become_infinite_wherever_casts_are_used():
    values = values_with(65520.0)
    expected = round_to_precision(values, FP16)
    rounder = CastRounder(FP16)

    copy = rounder.rounded(tensor_of(values.copy()))
    in_place = tensor_of(values.copy())
    done = rounder.round_in_place(in_place)

    assert done is (copy is not None)
    if copy is not None:
        assert np.array_equal(value_of(copy), expected)
        assert np.array_equal(value_of(in_place), expected)
    assert np.isinf(expected[[0, -1]]).all()
