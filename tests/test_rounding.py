"""Rounding against numpy's float16, ml_dtypes' bfloat16, and the constants of IEEE 754."""

from __future__ import annotations

import warnings

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from polygraphy_layerprec.precision import BF16, FP16, PRECISIONS
from polygraphy_layerprec.rounding import (
    CHUNK_ELEMENTS,
    ChunkRounder,
    chunks_of,
    round_flat,
    round_to_precision,
)

PEERS = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
EVERY_PRECISION = pytest.mark.parametrize("precision", [FP16, BF16], ids=lambda p: p.name)


def peer_rounding(values, precision):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return values.astype(PEERS[precision.name]).astype(values.dtype)


def assert_same_bits(found, expected):
    """Equal in sign too, and NaN where NaN is wanted."""
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(found[known], expected[known])
    np.testing.assert_array_equal(np.signbit(found[known]), np.signbit(expected[known]))


def random_bits(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2**32, count, np.uint32).view(np.float32)


@EVERY_PRECISION
def test_every_number_of_the_format_stays_as_it_is(precision):
    every = np.arange(2**16, dtype=np.uint16).view(PEERS[precision.name]).astype(np.float32)
    assert_same_bits(round_to_precision(every, precision), every)


@EVERY_PRECISION
def test_halfway_between_neighbours_the_even_one_wins(precision):
    with np.errstate(invalid="ignore"):  # signalling NaNs
        every = np.arange(2**15, dtype=np.uint16).view(PEERS[precision.name]).astype(np.float64)
    finite = every[np.isfinite(every)]
    halfway = (finite[:-1] + finite[1:]) / 2
    even = np.where(np.arange(finite.size - 1) % 2 == 0, finite[:-1], finite[1:])
    for sign in (1.0, -1.0):
        assert_same_bits(round_to_precision(sign * halfway, precision), sign * even)
        just_above = np.nextafter(halfway, np.inf)
        assert_same_bits(round_to_precision(sign * just_above, precision), sign * finite[1:])


@EVERY_PRECISION
@pytest.mark.parametrize("seed", range(3))
def test_any_float32_rounds_as_the_peer_does(precision, seed):
    values = random_bits(10 * CHUNK_ELEMENTS + 7, seed)
    assert_same_bits(round_to_precision(values, precision), peer_rounding(values, precision))


@EVERY_PRECISION
def test_float64_is_rounded_once_and_not_by_way_of_float32(precision):
    # 1 + half an ulp + a little: rounded to float32 first, the little is lost and the tie goes down
    value = np.array([1.0 + precision.unit_roundoff + 2.0**-40])
    assert round_to_precision(value, precision)[0] == 1.0 + 2 * precision.unit_roundoff


@EVERY_PRECISION
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_edges_of_the_format(precision, dtype):
    top, threshold = precision.max_finite, precision.overflow_threshold
    below = np.nextafter(dtype(threshold), dtype(0))
    cases = [
        (0.0, 0.0),
        (-0.0, -0.0),
        (top, top),
        (below, top),
        (threshold, np.inf),
        (-threshold, -np.inf),
        (np.inf, np.inf),
        (-np.inf, -np.inf),
        (precision.min_subnormal, precision.min_subnormal),
        (precision.min_normal, precision.min_normal),
    ]
    for given_value, wanted in cases:
        found = round_to_precision(np.array([given_value], dtype), precision)
        assert_same_bits(found, np.array([wanted], dtype))
    assert np.isnan(round_to_precision(np.array([np.nan], dtype), precision))[0]


def test_the_constants_of_binary16_and_bfloat16():
    assert (FP16.max_finite, FP16.overflow_threshold) == (65504.0, 65520.0)
    assert (FP16.min_normal, FP16.min_subnormal, FP16.unit_roundoff) == (2**-14, 2**-24, 2**-11)
    assert BF16.max_finite == float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)
    assert BF16.min_subnormal == float(ml_dtypes.finfo(ml_dtypes.bfloat16).smallest_subnormal)
    assert BF16.min_normal == float(ml_dtypes.finfo(ml_dtypes.bfloat16).smallest_normal)
    assert PRECISIONS == {"fp16": FP16, "bf16": BF16}


def test_numbers_around_the_largest_of_fp16():
    values = np.array([65504, 65519.996, 65520, -65520, 65519.0, 2.0**-25, 2.0**-25 * 1.01])
    expected = [65504, 65504, np.inf, -np.inf, 65504, 0.0, 2.0**-24]
    np.testing.assert_array_equal(round_to_precision(values.astype(np.float32), FP16), expected)


@EVERY_PRECISION
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturating_keeps_finite_numbers_finite_and_infinities_infinite(precision, dtype):
    huge = np.finfo(dtype).max
    values = np.array([huge, -huge, np.inf, -np.inf, np.nan, 1.0, -0.0], dtype)
    top = precision.max_finite
    expected = np.array([top, -top, np.inf, -np.inf, np.nan, 1.0, -0.0], dtype)
    assert_same_bits(round_to_precision(values, precision, saturate=True), expected)


@EVERY_PRECISION
@given(
    values=hnp.arrays(
        np.float32, st.integers(0, 40), elements=st.floats(width=32, allow_subnormal=True)
    )
)
def test_rounding_is_idempotent_odd_and_as_the_peers(precision, values):
    rounded = round_to_precision(values, precision)
    assert_same_bits(rounded, peer_rounding(values, precision))
    assert_same_bits(round_to_precision(rounded, precision), rounded)
    assert_same_bits(round_to_precision(-values, precision), -rounded)


def test_rounding_in_place_gives_the_same():
    values = random_bits(3 * CHUNK_ELEMENTS, 5)
    expected = round_to_precision(values, FP16)
    result = round_to_precision(values, FP16, out=values)
    assert result is values
    assert_same_bits(values, expected)


def test_a_large_array_is_rounded_as_its_parts_are():
    values = np.random.default_rng(0).normal(0, 1e4, 9 * CHUNK_ELEMENTS + 1).astype(np.float32)
    whole = round_to_precision(values, FP16)
    parts = [round_to_precision(part, FP16) for part in np.array_split(values, 40)]
    assert_same_bits(whole, np.concatenate(parts))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3, 4)])
def test_the_shape_stays(shape):
    values = np.full(shape, 1.0 + 2.0**-12, np.float32)
    found = round_to_precision(values, FP16)
    assert found.shape == shape
    assert (found == 1.0).all()


def test_an_array_that_is_not_contiguous_is_rounded():
    values = random_bits(64, 2).reshape(8, 8).T[::2]
    assert_same_bits(round_to_precision(values, FP16), peer_rounding(values, FP16))


def test_the_source_stays_as_it_was():
    values = np.array([1.0 + 2.0**-12, 1e6], np.float32)
    before = values.copy()
    round_to_precision(values, FP16)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.complex64])
def test_other_types_are_refused(dtype):
    with pytest.raises(ValueError, match="float32 or float64"):
        round_to_precision(np.ones(2, dtype), FP16)


@EVERY_PRECISION
@pytest.mark.parametrize("saturate", [False, True])
def test_no_value_makes_numpy_warn(precision, saturate):
    values = np.concatenate([random_bits(4096), np.array([np.nan, np.inf, 3e38], np.float32)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = round_to_precision(values, precision, saturate=saturate)
    assert np.isnan(found).sum() == np.isnan(values).sum()


def test_a_rounder_tells_the_binade_of_the_largest_value():
    rounder = ChunkRounder(FP16, np.dtype(np.float32))
    target = np.empty(2, np.float32)
    assert rounder.round(np.array([3.0, -5.0], np.float32), target) == 4.0
    assert rounder.round(np.array([0.0, 1e-40], np.float32), target) == 0.0
    assert rounder.round(np.array([0.0, np.nan], np.float32), target) == np.inf
    assert rounder.round(np.empty(0, np.float32), np.empty(0, np.float32)) == 0.0


def test_without_the_sign_of_zero_the_values_are_the_same():
    values = np.array([-(2.0**-26), 2.0**-26, -1.5, 0.3], np.float32)
    target = np.empty_like(values)
    ChunkRounder(FP16, values.dtype).round(values, target, keep_sign_of_zero=False)
    np.testing.assert_array_equal(target, round_to_precision(values, FP16))


@given(st.integers(0, 5 * CHUNK_ELEMENTS))
def test_chunks_cover_everything_once_in_order(size):
    chunks = list(chunks_of(size))
    assert [i for c in chunks for i in (c.start, c.stop)] == sorted(
        i for c in chunks for i in (c.start, c.stop)
    )
    assert sum(c.stop - c.start for c in chunks) == size
    assert all(0 < c.stop - c.start <= CHUNK_ELEMENTS for c in chunks)


def test_rounding_flat_writes_to_the_target():
    source, target = np.array([1.0 + 2.0**-12], np.float32), np.zeros(1, np.float32)
    round_flat(source, target, FP16)
    assert target[0] == 1.0
