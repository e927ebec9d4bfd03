from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy.stats import spearmanr

from polygraphy_layerprec.ranking.stability import order_stability, relative_uncertainty


def test_samples_that_agree_are_1_apart_and_opposite_ones_minus_1():
    order = np.array([1.0, 2.0, 3.0, 4.0])

    assert order_stability(np.column_stack([order, 10 * order, order**2])) == 1.0
    assert order_stability(np.column_stack([order, 1 / order])) == -1.0


def test_it_is_the_mean_over_all_pairs_of_samples():
    # Spearman's 1 - 6 sum(d^2) / (n (n^2 - 1)), n = 3: 1/2, -1 and -1/2 for the three pairs.
    samples = np.column_stack([[1, 2, 3], [1, 3, 2], [3, 2, 1]])

    assert order_stability(samples) == pytest.approx((0.5 - 1.0 - 0.5) / 3)


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(3, 12))
def test_it_is_what_scipy_finds_pair_by_pair(seed, samples, layers):
    powers = np.random.default_rng(seed).integers(1, 6, (layers, samples)).astype(float)
    usable = [sample for sample in powers.T if np.ptp(sample)]
    pairs = [
        spearmanr(usable[i], usable[j]).statistic for i in range(len(usable)) for j in range(i)
    ]

    expected = pytest.approx(np.mean(pairs), abs=1e-9) if pairs else None
    assert order_stability(powers) == expected


@given(st.permutations(range(4)))
def test_the_order_of_the_samples_does_not_matter(order):
    powers = np.random.default_rng(5).random((9, 4))

    assert order_stability(powers[:, list(order)]) == pytest.approx(order_stability(powers))


def test_layers_without_impact_do_not_count_as_agreement():
    opposite = np.array([[1.0, 2.0], [2.0, 1.0]])

    assert order_stability(np.vstack([opposite, np.zeros((50, 2))])) == -1.0


@pytest.mark.parametrize("powers", [[[1.0], [2.0]], [[1.0, 1.0], [1.0, 1.0]], [[1.0, 2.0]]])
def test_one_sample_one_layer_or_no_order_says_nothing(powers):
    assert order_stability(powers) is None


def test_uncertainty_is_half_the_relative_standard_error_of_the_squares():
    # Mean 2, sample deviation 1, standard error 1 / sqrt(4).
    powers = [1.0, 3.0, 2.0 + np.sqrt(0.5), 2.0 - np.sqrt(0.5)]

    assert relative_uncertainty(powers) == pytest.approx(0.5 / 2 / 2)
    assert relative_uncertainty([4.0, 4.0, 4.0]) == 0.0


@pytest.mark.parametrize("powers", [[], [1.0], [0.0, 0.0]])
def test_uncertainty_is_unknown_without_two_samples_or_an_impact(powers):
    assert relative_uncertainty(powers) is None
