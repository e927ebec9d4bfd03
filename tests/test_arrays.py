"""Arrays that lie on a device: reduced, rounded, compared and kept as numpy's are."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec import arrays
from polygraphy_layerprec.divergence.activation_store import ActivationStore
from polygraphy_layerprec.divergence.metrics import measure_divergence
from polygraphy_layerprec.divergence.powers import norm_of, squared_distance, sum_of_squares
from polygraphy_layerprec.precision import BF16, FP16
from polygraphy_layerprec.rounding import round_to_precision
from tests.foreign_arrays import ForeignArray, foreign, foreign_arrays

SIZES = (1, 2047, 4096, 10_000)
"""Less than a row, rows without a rest, and rows with one."""


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def library():
    with foreign_arrays():
        yield


@pytest.mark.parametrize("size", SIZES)
def test_reductions_are_those_of_numpy(size, rng):
    values = rng.standard_normal(size)
    mask = values > 1.0

    assert arrays.largest_of(foreign(values)) == arrays.largest_of(values) == values.max()
    assert arrays.smallest_of(foreign(values)) == arrays.smallest_of(values) == values.min()
    assert arrays.count_true(foreign(mask)) == arrays.count_true(mask) == mask.sum()
    assert arrays.is_any_true(foreign(mask)) == arrays.is_any_true(mask) == mask.any()
    assert arrays.is_all_true(foreign(~mask)) == arrays.is_all_true(~mask) == (~mask).all()


@pytest.mark.parametrize("size", SIZES)
def test_a_nan_in_any_row_is_the_extreme(size):
    values = np.zeros(size)
    values[-1] = np.nan

    assert np.isnan(arrays.largest_of(foreign(values)))
    assert np.isnan(arrays.smallest_of(foreign(values)))
    assert arrays.is_same(foreign(values), foreign(values.copy()))
    assert not arrays.is_same(foreign(values), foreign(np.zeros(size)))


def test_sums_are_those_of_numpy(rng):
    first, second = rng.standard_normal((2, 5000))

    assert sum_of_squares(foreign(first)) == pytest.approx(sum_of_squares(first))
    assert norm_of(foreign(first)) == pytest.approx(norm_of(first))
    assert squared_distance(foreign(first), foreign(second)) == pytest.approx(
        squared_distance(first, second)
    )


@pytest.mark.parametrize("precision", [FP16, BF16])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 1e5, 1e37])
def test_divergence_is_that_of_numpy(precision, spread, rng):
    reference = (rng.standard_normal((4, 700)) * spread).astype(np.float32)
    candidate, introduced = reference * np.float32(1.01), reference * np.float32(0.99)
    candidate[0, 0] = np.nan
    halves = np.empty(reference.size, np.uint16)
    kept = ForeignArray(halves.copy())
    expected = measure_divergence(
        reference,
        candidate.copy(),
        precision=precision,
        introduced=introduced,
        compact_errors=halves,
    )
    moved = foreign(candidate.copy())
    rounded = round_to_precision(candidate, precision)

    found = measure_divergence(
        foreign(reference),
        moved,
        precision=precision,
        introduced=foreign(introduced),
        compact_errors=kept,
    )

    for name in expected.__slots__:
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-5), name
    np.testing.assert_array_equal(moved.values, rounded)
    np.testing.assert_array_equal(kept.values, halves)


def test_a_type_that_no_precision_is_narrower_than_is_refused():
    with pytest.raises(ValueError, match="must be float32 or float64, got float16"):
        round_to_precision(foreign(np.zeros(3, np.float16)), FP16)


def test_a_store_moves_what_is_too_much_for_a_device_to_the_host(rng):
    store = ActivationStore(budget_bytes=100)
    values = [rng.standard_normal(10) for _ in range(4)]

    for index, array in enumerate(values):
        store.put(str(index), foreign(array))

    assert store.resident_bytes <= 100
    for index, array in enumerate(values):
        assert str(index) in store
        kept = store.get(str(index))
        assert isinstance(kept, ForeignArray)
        np.testing.assert_array_equal(kept.values, array)
    store.drop("0")
    assert "0" not in store
    store.close()
    assert "1" not in store
