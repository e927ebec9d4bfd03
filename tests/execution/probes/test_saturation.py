"""Where the range ends, to the last bit, and when an overflow is felt."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.execution.probes.saturation import saturate_output
from polygraphy_layerprec.precision import FP16

BELOW = np.nextafter(np.float32(65520.0), np.float32(0.0))


def saturated(reference, arrived=None, origins=frozenset()):
    return saturate_output(
        np.asarray(reference, np.float32),
        None if arrived is None else np.asarray(arrived, np.float32),
        origins=origins,
        index=7,
        precision=FP16,
    )


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_an_overflow_begins_where_rounding_goes_to_infinity(sign):
    made = saturated([sign * 65520.0, 1.0])

    assert np.array_equal(made.values, np.array([sign * np.inf, 1.0], np.float32))
    assert made.overflows == {7}


def test_below_that_nothing_overflows():
    made = saturated([-BELOW, BELOW])

    assert made.values is None
    assert not made.overflows


def test_what_is_infinite_in_fp32_is_no_overflow():
    assert saturated([np.inf, -np.inf, np.nan]).values is None


@pytest.mark.parametrize(
    ("arrived", "felt"),
    [([1.0, 2.0], False), ([1.0, 2.02], False), ([1.0, 2.03], True), ([np.nan, 2.0], True)],
)
def test_an_overflow_is_felt_where_values_in_range_change_by_a_hundredth(arrived, felt):
    made = saturated([1.0, 2.0], arrived, frozenset({3}))

    assert made.harmful == (frozenset({3}) if felt else frozenset())


def test_an_infinity_that_arrives_where_the_reference_is_beyond_the_range_too_is_not_felt():
    made = saturated([1e6, 2.0], [np.inf, 2.0], frozenset({3}))

    assert (made.harmful, made.overflows) == (frozenset(), {3, 7})


def test_another_shape_is_felt():
    assert saturated([1.0, 2.0], [1.0], frozenset({3})).harmful == {3}
