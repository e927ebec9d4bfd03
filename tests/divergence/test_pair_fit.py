"""How a scale fits, from closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.divergence.pair_fit import describe_fit, fit_of

INT8 = {"largest_step": 127.0, "has_even_steps": True}
FP8 = {"largest_step": 448.0, "has_even_steps": False}


def fit(values, scale, kind=INT8, axis=1):
    limits = np.asarray(scale, np.float64) * kind["largest_step"]
    return fit_of(np.asarray(values, np.float32), limits, channel_axis=axis, **kind)


def test_counts_and_powers_are_those_of_the_definition():
    found = fit([[0.0, 0.4, 200.0], [130.0, -0.6, 0.5]], 1.0)

    assert (found.element_count, found.clipped_count, found.zeroed_count) == (6, 2, 2)
    assert found.clipping_power == pytest.approx(73.0**2 + 3.0**2)
    assert found.rounding_power == pytest.approx(6 / 12)
    assert found.channel_steps == pytest.approx((130.0, 0.6, 200.0))
    assert found.max_abs == 200.0


def test_parts_of_a_tensor_add_up_to_the_whole():
    values = np.random.default_rng(0).standard_normal((8, 5)) * 100

    whole, parts = fit(values, 0.5), fit(values[:3], 0.5) + fit(values[3:], 0.5)

    assert parts.channel_steps == whole.channel_steps
    assert parts.clipped_count == whole.clipped_count
    assert parts.rounding_power == pytest.approx(whole.rounding_power)
    assert parts.clipping_power == pytest.approx(whole.clipping_power)


def test_channels_of_another_number_are_no_channels():
    assert (fit(np.ones((2, 3)), 0.1) + fit(np.ones((2, 4)), 0.1)).channel_steps == pytest.approx(
        (10.0,)
    )


def kind_of(found):
    described = describe_fit("'x'", found)
    return None if described is None else described[0]


GAUSSIAN = np.random.default_rng(0).standard_normal((64, 8))


def test_a_scale_that_fits_is_not_told():
    assert kind_of(fit(GAUSSIAN, np.abs(GAUSSIAN).max() / 127)) is None


def test_saturation_is_what_clips_more_than_it_rounds():
    found = fit(GAUSSIAN, 1.0 / 127)

    kind, told, _ = describe_fit("'x'", found)

    share = np.mean(np.abs(GAUSSIAN) > 1.0)
    assert kind == "saturation"
    assert f"{100 * share:.2g} % of 'x' are clipped to 1," in told


def test_an_outlier_channel_is_named_by_its_place():
    values = GAUSSIAN * np.where(np.arange(8) == 3, 500.0, 1.0)

    kind, told, _ = describe_fit("'x'", fit(values, np.abs(values).max() / 127))

    assert kind == "outlier channel"
    assert "channel 3 of 'x'" in told


def test_lost_values_are_those_below_half_a_step():
    values = GAUSSIAN.copy()
    values[0] = 1000.0  # in every channel

    assert kind_of(fit(values, 1000.0 / 127)) == "lost values"


def test_a_scale_that_is_too_wide_wastes_range():
    kind, told, _ = describe_fit("'x'", fit(GAUSSIAN, np.abs(GAUSSIAN).max() / 10))

    assert kind == "wasted range"
    assert "10 of 127 steps" in told


def test_channels_that_vanish_are_dead():
    values = GAUSSIAN * np.where(np.arange(8) == 3, 1e-3, 1.0)

    kind, told, _ = describe_fit("'x'", fit(values, np.abs(values).max() / 127))

    assert (kind, "1 of 8" in told) == ("dead channels", True)


def test_fp8_keeps_small_values_beside_large_ones():
    values = GAUSSIAN * np.where(np.arange(8) == 3, 500.0, 1.0)

    assert kind_of(fit(values, np.abs(values).max() / 448, FP8)) is None


def test_what_is_not_finite_does_not_count():
    values = GAUSSIAN.copy()
    values[0, 0], values[0, 1] = np.inf, np.nan

    found = fit(values, np.abs(GAUSSIAN).max() / 127)

    assert found.element_count == GAUSSIAN.size - 2
    assert np.isfinite(found.max_abs)


@pytest.mark.parametrize(("values", "steps"), [([[1.0, -130.0], [64.0, 2.0]], 65.0), ([[]], 0.0)])
def test_without_channels_the_largest_magnitude_counts(values, steps):
    assert fit(values, 2.0, axis=None).channel_steps == (steps,)


@pytest.mark.parametrize("values", [np.zeros((3, 4)), np.empty((0, 4))])
def test_a_tensor_of_nothing_says_nothing_of_its_scale(values):
    assert describe_fit("input", fit(values, 1.0)) is None
