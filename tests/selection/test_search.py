"""The search for a cheap set that meets a tolerance, against brute force and hostile oracles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraphy_layerprec.selection import SetForecast
from polygraphy_layerprec.selection.prices import prices_for
from polygraphy_layerprec.selection.search import search_set
from tests.layer_graphs import all_sets, chain_of, layer_graphs, layer_of, mask_of

SHARES = st.floats(0.01, 0.99)
COSTS = st.sampled_from(["count", "flops", "casts"])


class Oracle:
    """Remembers what it was asked."""

    def __init__(self, error_of):
        self.error_of = error_of
        self.asked = {}

    def __call__(self, kept):
        assert kept.tobytes() not in self.asked, "every set is measured once"
        self.asked[kept.tobytes()] = self.error_of(kept)
        return self.asked[kept.tobytes()]


def search(layers, tolerance, *, error_of=None, required="", allowed=None, cost="count"):
    forecast = SetForecast(layers)
    return search_set(
        forecast,
        tolerance=tolerance,
        error_of=error_of or forecast.error,
        required=mask_of(layers, required),
        allowed=np.ones(len(layers), bool) if allowed is None else mask_of(layers, allowed),
        cost=cost,
    )


def whole_error(layers):
    return SetForecast(layers).error(np.zeros(len(layers), bool))


@given(layer_graphs(), SHARES)
def test_the_fewest_layers_are_found_or_nearly(layers, share):
    forecast = SetForecast(layers)
    tolerance = share * whole_error(layers)

    found = search(layers, tolerance)

    fewest = min(kept.sum() for kept in all_sets(len(layers)) if forecast.error(kept) <= tolerance)
    assert found.error <= tolerance
    assert found.kept.sum() <= fewest + 1


def price_of(layers, cost, kept):
    forecast = SetForecast(layers)
    return prices_for(cost, forecast).of(kept, forecast.cost(kept).cast_count)


@given(layer_graphs(), SHARES, COSTS)
def test_the_set_meets_the_tolerance_at_no_more_than_the_price_of_the_prefix(layers, share, cost):
    forecast = SetForecast(layers)
    tolerance = share * whole_error(layers)

    found = search(layers, tolerance, cost=cost)

    lengths = np.arange(len(layers) + 1)
    prefixes = [np.arange(len(layers)) < length for length in lengths]
    shortest = next(p for p in prefixes if forecast.error(p) <= tolerance)
    assert found.plain.tolist() == shortest.tolist()
    assert found.error == forecast.error(found.kept) <= tolerance
    assert price_of(layers, cost, found.kept) <= price_of(layers, cost, shortest)


# The search is not exhaustive: for this there are examples, and no proof.
@given(layer_graphs(), SHARES, SHARES, COSTS)
def test_a_larger_tolerance_never_needs_a_pricier_set(layers, one, other, cost):
    smaller, larger = sorted((one, other))

    strict = search(layers, smaller * whole_error(layers), cost=cost)
    loose = search(layers, larger * whole_error(layers), cost=cost)

    least = price_of(layers, cost, loose.kept)
    assert least <= price_of(layers, cost, strict.kept) + 1e-9
    assert not (loose.plain & ~strict.plain).any()


@given(layer_graphs(), st.integers(0, 1000), st.floats(0.0, 1.0), COSTS)
def test_whatever_is_measured_only_a_set_that_was_measured_to_meet_it_is_returned(
    layers, seed, tolerance, cost
):
    rng = np.random.default_rng(seed)
    oracle = Oracle(lambda _: float(rng.uniform(0.0, 1.0)))

    found = search(layers, tolerance, error_of=oracle, cost=cost)

    assert oracle.asked[found.kept.tobytes()] == found.error
    if found.error > tolerance:
        assert found.error == min(oracle.asked.values())
    assert (found.plain is None) == (found.error > tolerance)


def test_what_cannot_be_measured_meets_no_tolerance():
    found = search(chain_of(3.0, 2.0), 1.0, error_of=lambda _: float("nan"))

    assert found.plain is None


def test_a_tolerance_that_is_met_already_keeps_what_is_required_alone():
    layers = chain_of(3.0, 2.0, 1.0)

    found = search(layers, 10.0, required="c")

    assert found.kept.tolist() == found.plain.tolist() == mask_of(layers, "c").tolist()


def test_an_unreachable_tolerance_returns_the_best_of_the_extremes():
    layers = chain_of(3.0, 2.0, 1.0)

    found = search(layers, 0.0, allowed="ab")
    assert found.kept.tolist() == mask_of(layers, "ab").tolist()
    assert found.error == SetForecast(layers).error(mask_of(layers, "ab"))
    assert found.plain is None

    worse = search(layers, 0.0, error_of=lambda kept: 1.0 + kept.sum())
    assert not worse.kept.any()
    assert worse.error == 1.0


def test_layers_without_impact_are_kept_only_if_the_measurement_says_so():
    layers = chain_of(0.0, 0.0, 0.0)

    found = search(layers, 0.5, error_of=lambda kept: 0.0 if kept[1] else 1.0)

    assert found.kept[1]
    assert found.error == 0.0


def test_members_of_an_island_that_are_not_needed_are_dropped():
    layers = [
        layer_of("a", 4.0, readers=(("d", 1.0),), weight_share=1.0),
        layer_of("b", 3.0, readers=(("d", 1.0),), weight_share=0.0),
        layer_of("c", 2.0, readers=(("d", 1.0),), weight_share=1.0),
        layer_of("d", 2.0),
    ]

    # With a and d alone the error is sqrt(9 + 4): b, which a cut brings along, is not needed.
    found = search(layers, 3.91)

    assert found.kept.tolist() == mask_of(layers, "ad").tolist()
    assert found.plain.tolist() == mask_of(layers, "abc").tolist()


def test_members_that_are_not_needed_are_dropped():
    # The forecast takes the first for the worst; measured, all error comes from the last.
    layers = [layer_of("a", 3.0), layer_of("b", 2.0), layer_of("c", 1.0), layer_of("d", 2.5)]

    found = search(layers, 0.1, error_of=lambda kept: 0.0 if kept[3] and kept[1] else 1.0)

    assert found.kept.tolist() == mask_of(layers, "abd").tolist()
    assert found.plain.tolist() == [True] * 4


def test_all_that_is_required_is_kept_and_nothing_else_than_is_allowed():
    layers = chain_of(5.0, 4.0, 3.0, 2.0, 1.0)
    whole = whole_error(layers)
    for share in (0.95, 0.9, 0.85, 0.8):
        found = search(layers, share * whole, required="e", allowed="abc")
        kept = {layer.name for layer, keep in zip(layers, found.kept, strict=True) if keep}
        assert "e" in kept
        assert kept <= set("abce")


@pytest.mark.parametrize("cost", ["count", "flops", "casts"])
def test_few_sets_are_measured(cost):
    rng = np.random.default_rng(0)
    layers = chain_of(*sorted(rng.uniform(0, 1, 26), reverse=True))
    oracle = Oracle(SetForecast(layers).error)

    search(layers, whole_error(layers) / 2, error_of=oracle, cost=cost)

    # The two extremes, log2(26) prefixes, ten cuts for each of two families, log2(26) to prune.
    assert len(oracle.asked) <= 2 + 5 + 20 + 5


def test_flops_and_casts_are_saved_where_they_are_asked_for():
    heavy = [layer_of("a", 3.0, flops=1000.0), layer_of("b", 2.0), layer_of("c", 2.0)]
    tolerance = 3.1
    assert search(heavy, tolerance).kept.tolist() == [True, False, False]
    assert search(heavy, tolerance, cost="flops").kept.tolist() == [False, True, True]

    scattered = chain_of(4.0, 0.5, 4.0, weight_share=1.0)
    tolerance = 0.6
    assert search(scattered, tolerance).kept.tolist() == [True, False, True]
    assert search(scattered, tolerance, cost="casts").kept.tolist() == [True, True, True]
