"""The divergence of model outputs against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.execution.comparison.output_divergence import OutputDivergences
from polygraphy_layerprec.precision import FP16


def divergence_of(reference, candidate):
    divergences = OutputDivergences(["y"], FP16)
    divergences.add({"y": np.asarray(reference)}, {"y": np.asarray(candidate)})
    return divergences


def floats(*values):
    return np.array(values, np.float32)


def test_the_error_is_relative_to_the_norm_of_the_reference():
    divergences = divergence_of(floats(3, 4), floats(3, 4.5))

    assert divergences.error == pytest.approx(0.1)
    assert divergences.max_abs_error == pytest.approx(0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_was_finite_and_is_not_is_an_infinite_error(value):
    divergences = divergence_of(floats(3, 4), floats(3, value))

    assert divergences.error == divergences.max_abs_error == np.inf
    assert divergences.records()[0].error == divergences.records()[0].max_abs_error == np.inf
    assert divergences.records()[0].nonfinite_count == 1


def test_among_finite_errors_a_nan_counts_as_the_loss_of_its_element():
    divergences = divergence_of(floats(3, 4), floats(3, np.nan))

    assert divergences.finite_error == pytest.approx(4 / 5)
    assert divergences.finite_max_abs_error == pytest.approx(4)


def test_among_finite_errors_an_infinity_counts_as_the_largest_number():
    divergences = divergence_of(floats(3, 4), floats(3, -np.inf))

    assert divergences.finite_error == pytest.approx(65508 / 5)
    assert divergences.finite_max_abs_error == pytest.approx(65508)


def test_what_leaves_the_range_at_an_output_is_wrong_by_as_much_as_it_moved():
    lost = divergence_of(floats(90000), floats(np.inf))
    assert lost.finite_error == pytest.approx(24496 / 90000)
    assert divergence_of(floats(90000), floats(99000)).error == pytest.approx(0.1)


def test_infinities_and_nan_of_the_reference_itself_are_no_error():
    divergences = divergence_of(floats(np.inf, np.nan, 2), floats(np.inf, np.nan, 2))

    assert divergences.error == 0.0
    assert divergences.records()[0].mismatch_fraction == 0.0


def test_integer_outputs_are_told_by_their_mismatches():
    record = divergence_of(np.arange(4), np.array([0, 1, 2, 9])).records()[0]

    assert record.error is None
    assert record.max_abs_error is None
    assert record.mismatch_fraction == 0.25


def test_of_nothing_no_share_differs():
    (record,) = divergence_of(np.arange(0), np.arange(0)).records()

    assert record.mismatch_fraction == 0.0


def test_another_shape_is_a_total_loss_and_has_no_error_of_its_own():
    divergences = divergence_of(floats(1, -2, np.inf), floats(1, 2))
    (record,) = divergences.records()

    assert (divergences.error, divergences.max_abs_error) == (1.0, 2.0)
    assert record.error is None
    assert record.mismatch_fraction == 1.0


def test_samples_and_outputs_add_up_as_a_root_mean_square():
    divergences = OutputDivergences(["a", "b"], FP16)
    exact = {"a": floats(1), "b": floats(1)}
    divergences.add(exact, {"a": floats(1.5), "b": floats(1)})
    divergences.add(exact, {"a": floats(1), "b": floats(1)})

    assert divergences.error == pytest.approx(np.sqrt(0.25 / 4))
    assert divergences.records()[0].error == pytest.approx(np.sqrt(0.25 / 2))
    assert divergences.records()[1].error == 0.0
