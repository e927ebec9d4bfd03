"""Weights in low precision, against the rounding of this package and of ml_dtypes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from polygraphy_layerprec.emit.low_precision import convert_weights, find_low_precision
from polygraphy_layerprec.emit.network_view import NetworkError
from polygraphy_layerprec.precision import PRECISIONS
from polygraphy_layerprec.rounding import round_to_precision

TENSORRT = SimpleNamespace(float16="half", bfloat16="bf16")
FLOATS = arrays.arrays(np.float32, st.integers(1, 50), elements=st.floats(width=32))


def widen(converted):
    """FP16 or the bits of BF16, as float32."""
    if converted.dtype == np.float16:
        return converted.astype(np.float32)
    return (converted.astype(np.uint32) << 16).view(np.float32)


@settings(max_examples=300)
@given(values=FLOATS, name=st.sampled_from(["fp16", "bf16"]))
def test_weights_are_rounded_to_nearest_and_saturate(values, name):
    converted = widen(convert_weights(values, find_low_precision(name, TENSORRT)))

    expected = round_to_precision(values, PRECISIONS[name], saturate=True)
    np.testing.assert_array_equal(converted, expected)
    numbers = ~np.isnan(expected)
    assert np.array_equal(np.signbit(converted[numbers]), np.signbit(expected[numbers]))


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("fp16", [65504.0, 65520.0, -3.4028235e38, np.inf], [65504.0, 65504.0, -65504.0, np.inf]),
        ("fp16", [2.0**-24, 2.0**-25, -0.0], [2.0**-24, 0.0, -0.0]),
        ("fp16", [1 + 2.0**-11, 1 + 3 * 2.0**-11], [1.0, 1 + 2.0**-9]),
        ("bf16", [3.4028235e38, -np.inf, 1 + 2.0**-8], [255 * 2.0**120, -np.inf, 1.0]),
    ],
)
def test_special_values_follow_ieee_754(name, values, expected):
    converted = convert_weights(np.array(values, np.float32), find_low_precision(name, TENSORRT))

    np.testing.assert_array_equal(widen(converted), np.array(expected, np.float32))


def test_bits_of_bf16_agree_with_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.random.default_rng(0).integers(0, 2**32, 10_000, np.uint32).view(np.float32)
    values = values[np.isfinite(values) & (np.abs(values) < 255 * 2.0**120)]

    converted = convert_weights(values, find_low_precision("bf16", TENSORRT))

    np.testing.assert_array_equal(converted, values.astype(ml_dtypes.bfloat16).view(np.uint16))


def test_a_tensorrt_without_the_precision_is_refused():
    with pytest.raises(NetworkError, match="has no bfloat16"):
        find_low_precision("bf16", SimpleNamespace(float16="half"))
