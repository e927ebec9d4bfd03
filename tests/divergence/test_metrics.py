"""Divergence sums against float64 references, and the rules of merging."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from polygraphy_layerprec.divergence.compact_errors import ErrorMemory, errors_of
from polygraphy_layerprec.divergence.metrics import (
    DivergenceSums,
    measure_divergence,
    merge_sums,
    relative_error,
)
from polygraphy_layerprec.precision import BF16, FP16
from polygraphy_layerprec.rounding import CHUNK_ELEMENTS, round_to_precision

COUNTS = (
    "element_count",
    "incomparable_count",
    "overflow_count",
    "underflow_count",
    "reference_nonfinite_count",
    "candidate_nonfinite_count",
    "nan_count",
)


def normal(seed, *shape, scale=1.0, dtype=np.float32):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(dtype)


def measured(reference, candidate=None, *, precision=FP16, **options):
    candidate = reference.copy() if candidate is None else candidate.copy()
    return measure_divergence(reference, candidate, precision=precision, **options)


def wide_power(values):
    return float(np.sum(np.square(values.astype(np.float64))))


def assert_close(first, second):
    for field in dataclasses.fields(DivergenceSums):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if field.name in COUNTS:
            assert a == b, field.name
        else:
            assert a == pytest.approx(b, rel=1e-5), field.name


@pytest.mark.parametrize("precision", [FP16, BF16], ids=lambda p: p.name)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_sums_are_those_of_a_float64_reference(precision, dtype, scale):
    reference = normal(0, 5, 1000, scale=scale, dtype=dtype)
    introduced = reference * dtype(1.001)
    candidate = reference + normal(1, 5, 1000, scale=scale / 100, dtype=dtype)
    sums = measured(reference, candidate, precision=precision, introduced=introduced)
    lowered = round_to_precision(candidate, precision)
    assert sums.element_count == 5000
    assert sums.reference_power == pytest.approx(wide_power(reference), rel=1e-5)
    rounded = round_to_precision(introduced, precision)
    assert sums.introduced_power == pytest.approx(wide_power(rounded - reference), rel=1e-4)
    # Of `rounded - introduced`, which for numbers that are not on the grid is like the other.
    alone = round_to_precision(reference, precision)
    assert sums.rounding_power == pytest.approx(wide_power(alone - reference), rel=0.1)
    assert sums.cumulative_power == pytest.approx(wide_power(lowered - reference), rel=1e-4)
    assert sums.max_abs == np.abs(reference).max()
    assert sums.underflow_count == np.count_nonzero(np.abs(reference) < precision.min_subnormal)
    assert sums.introduced_error == pytest.approx(
        np.linalg.norm(rounded - reference) / np.linalg.norm(reference), rel=1e-4
    )
    assert sums.cumulative_error == pytest.approx(
        np.linalg.norm(lowered - reference) / np.linalg.norm(reference), rel=1e-4
    )


def test_without_an_introduced_run_only_the_output_rounds():
    reference = normal(0, 300)
    sums = measured(reference)
    error = round_to_precision(reference, FP16) - reference
    assert sums.introduced_power == pytest.approx(wide_power(error), rel=1e-5)
    assert sums.rounding_power == sums.introduced_power
    assert sums.cumulative_power == pytest.approx(sums.introduced_power)


@pytest.mark.parametrize("precision", [FP16, BF16], ids=lambda p: p.name)
def test_the_rounding_of_an_output_is_measured_though_its_rounded_inputs_leave_none(precision):
    seconds = np.arange(10001, 10065, dtype=np.float32)
    reference = seconds * np.float32(0.5)
    introduced = round_to_precision(seconds, precision) * np.float32(0.5)
    np.testing.assert_array_equal(round_to_precision(introduced, precision), introduced)

    sums = measured(reference, precision=precision, introduced=introduced)

    alone = round_to_precision(reference, precision) - reference
    assert sums.rounding_power == pytest.approx(wide_power(alone))


def test_the_candidate_is_rounded_in_place_unless_told_otherwise():
    reference = normal(0, 300)
    candidate = reference.copy()
    measure_divergence(reference, candidate, precision=FP16)
    np.testing.assert_array_equal(candidate, round_to_precision(reference, FP16))
    untouched = reference.copy()
    sums = measure_divergence(reference, untouched, precision=FP16, round_candidate=False)
    np.testing.assert_array_equal(untouched, reference)
    assert sums.cumulative_power == 0.0


def test_what_is_measured_in_pieces_merges_to_the_whole():
    size = 3 * CHUNK_ELEMENTS + 17
    reference = normal(0, size)
    reference[::97] *= 1e6
    reference[5], reference[6], reference[7] = np.nan, np.inf, 1e-30
    candidate = reference + normal(1, size, scale=1e-2)
    whole = measured(reference, candidate)
    cuts = [0, 100, CHUNK_ELEMENTS + 3, 2 * CHUNK_ELEMENTS, size]
    parts = [measured(reference[a:b], candidate[a:b]) for a, b in pairwise(cuts)]
    assert_close(merge_sums(parts), whole)


sums_strategy = st.builds(
    DivergenceSums,
    **dict.fromkeys(COUNTS, st.integers(0, 2**40)),
    **dict.fromkeys(
        ("reference_power", "introduced_power", "rounding_power", "cumulative_power", "max_abs"),
        st.integers(0, 2**40).map(float),
    ),
)


@given(sums_strategy, sums_strategy, sums_strategy)
def test_merging_is_associative_commutative_and_has_a_zero(a, b, c):
    assert (a + b) + c == a + (b + c) == merge_sums([c, b, a])
    assert a + DivergenceSums() == a
    assert merge_sums([]) == DivergenceSums()


@given(
    values=hnp.arrays(np.float32, 50, elements=st.floats(0.125, 8, width=32)),
    exponent=st.integers(-6, 6),
)
def test_the_relative_error_does_not_depend_on_a_power_of_two(values, exponent):
    scaled = values * np.float32(2.0**exponent)
    assert measured(scaled).introduced_error == pytest.approx(measured(values).introduced_error)


def test_a_reference_of_zeros_is_no_scale():
    zeros = np.zeros(8, np.float32)
    assert measured(zeros).cumulative_error == 0.0
    assert measured(zeros, zeros + 1e-3).cumulative_error == 1.0
    assert relative_error(0.0, 0.0) == 0.0
    assert relative_error(5.0, 0.0) == 1.0
    assert relative_error(4.0, 16.0) == 0.5


@pytest.mark.parametrize("tiny", [1e-40, 1e-30, 1e-20])
def test_values_too_small_to_be_squared_in_float32_are_lost_not_forgotten(tiny):
    sums = measured(np.full(10, tiny, np.float32))
    assert sums.introduced_error == pytest.approx(1.0)
    assert sums.underflow_count == 10


def test_underflow_counts_what_is_not_zero_and_below_the_smallest_number():
    values = np.array([0.0, 2.0**-25, -(2.0**-26), 2.0**-24, 1.0], np.float32)
    assert measured(values).underflow_count == 2


def test_a_mask_beyond_the_range_says_the_same_when_infinite():
    mask = np.where(np.arange(64) % 2, 0.0, np.finfo(np.float32).min).astype(np.float32)
    sums = measured(mask)
    assert sums.introduced_error == 0.0
    assert sums.cumulative_error == 0.0
    assert sums.overflow_count == 32
    assert sums.candidate_nonfinite_count == 32
    assert sums.max_abs == float(np.finfo(np.float32).max)


def test_a_mask_does_not_drown_the_values_beside_it():
    values = normal(0, 64)
    masked = np.concatenate([values, np.full(2, -3.4e38, np.float32)])
    sums = measured(masked, np.concatenate([values * 1.5, np.full(2, -3.4e38, np.float32)]))
    error = round_to_precision(values * np.float32(1.5), FP16) - values
    assert sums.cumulative_power == pytest.approx(wide_power(error), rel=1e-5)


@pytest.mark.parametrize("edge", [65504.0, 65519.996])
def test_what_rounds_to_the_largest_number_does_not_overflow(edge):
    assert measured(np.array([edge, 1.0], np.float32)).overflow_count == 0
    assert measured(np.array([65520.0, 1.0], np.float32)).overflow_count == 1


def test_nan_and_infinity_are_counted_and_never_spread_to_the_sums():
    reference = np.array([1.0, 2.0, np.nan, np.inf, 3.0, 4.0], np.float32)
    candidate = np.array([np.nan, np.inf, 1.0, np.inf, 3.0, -np.inf], np.float32)
    sums = measured(reference, candidate)
    assert sums.reference_nonfinite_count == 2
    assert sums.candidate_nonfinite_count == 3
    assert sums.nan_count == 2
    clip = FP16.max_finite
    # A NaN loses its element; infinity counts as the largest finite number.
    expected = 1.0**2 + (clip - 2.0) ** 2 + (clip + 4.0) ** 2
    assert sums.cumulative_power == pytest.approx(expected)
    assert sums.reference_power == pytest.approx(1 + 4 + 9 + 16)
    assert sums.introduced_power == 0.0
    assert sums.max_abs == 4.0


def test_an_introduced_infinity_against_a_tame_reference_counts():
    reference = np.array([60000.0, 1.0], np.float32)
    introduced = np.array([70000.0, 1.0], np.float32)
    sums = measured(reference, introduced=introduced)
    assert sums.introduced_power == pytest.approx((65504.0 - 60000.0) ** 2)
    assert sums.rounding_power == 0.0


def test_another_shape_cannot_be_compared_but_is_rounded():
    reference = normal(0, 6)
    candidate = normal(1, 4)
    expected = round_to_precision(candidate, FP16)
    sums = measure_divergence(reference, candidate, precision=FP16)
    assert sums.cumulative_error is None
    assert sums.incomparable_count == 6
    assert sums.introduced_error > 0.0
    np.testing.assert_array_equal(candidate, expected)
    left = normal(1, 4)
    measure_divergence(reference, left, precision=FP16, round_candidate=False)
    np.testing.assert_array_equal(left, normal(1, 4))


def test_another_shape_beside_infinities_cannot_be_compared_either():
    sums = measured(np.array([np.inf, 1.0], np.float32), np.ones(3, np.float32))
    assert sums.cumulative_error is None
    assert sums.candidate_nonfinite_count == 0


@pytest.mark.parametrize("scale", [1.0, 1e5])
def test_the_introduced_error_is_kept_within_its_bound(scale):
    reference = normal(0, 20, 700, scale=scale)
    compact = ErrorMemory().take(reference)
    measured(reference, compact_errors=compact)
    clip = FP16.max_finite
    rounded = np.clip(round_to_precision(reference, FP16), -clip, clip)
    error = (rounded - np.clip(reference, -clip, clip)).reshape(-1)
    found = errors_of(compact)
    assert found.dtype == np.float32
    assert (np.abs(found) <= np.abs(error)).all()
    assert (np.abs(found - error) <= 2.0**-7 * np.abs(error)).all()
    assert np.abs(error).max() > 0


def test_an_empty_tensor_has_no_sums():
    assert measured(np.empty((0, 4), np.float32)) == DivergenceSums()


def test_a_zero_dimensional_tensor_is_one_element():
    sums = measured(np.array(1.0 + 2.0**-12, np.float32))
    assert sums.element_count == 1
    assert sums.introduced_error == pytest.approx(2.0**-12, rel=1e-3)


@pytest.mark.parametrize("precision", [FP16, BF16], ids=lambda p: p.name)
@pytest.mark.parametrize(
    "special", [0.0, 1e-9, 1e-30, 1e-40, 40000.0, 60000.0, 65520.0, 1e9, 3e38, np.inf, np.nan]
)
@pytest.mark.parametrize("spoilt", ["reference", "candidate", "introduced", "all"])
def test_tensors_that_are_rounded_already_are_measured_the_same(precision, special, spoilt):
    tensors = {
        name: normal(i, 40) for i, name in enumerate(("reference", "candidate", "introduced"))
    }
    for name, values in tensors.items():
        if spoilt in {name, "all"}:
            values[7] = special
        if spoilt == "all" and abs(special) < 1:
            values[:] = special
    candidate = round_to_precision(tensors["candidate"], precision)
    compact = [ErrorMemory().take(candidate) for _ in range(2)]
    slow = measured(
        tensors["reference"],
        tensors["candidate"],
        precision=precision,
        introduced=tensors["introduced"],
        compact_errors=compact[0],
    )
    fast = measured(
        tensors["reference"],
        candidate,
        precision=precision,
        introduced=tensors["introduced"],
        introduced_rounded=round_to_precision(tensors["introduced"], precision),
        round_candidate=False,
        compact_errors=compact[1],
    )
    assert_close(fast, slow)
    np.testing.assert_allclose(*(errors_of(errors) for errors in compact), rtol=1e-2)
