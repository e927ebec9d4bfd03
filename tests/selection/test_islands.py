"""Minimum cuts against brute force over every subset."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from polygraphy_layerprec.selection import SetForecast
from polygraphy_layerprec.selection.islands import IslandCuts
from polygraphy_layerprec.selection.prices import prices_for
from tests.layer_graphs import all_sets, chain_of, layer_graphs, layer_of

COSTS = ["count", "flops", "casts"]
PRICES = st.floats(-2.0, 4.0).map(lambda exponent: 10.0**exponent)


def cuts_of(layers, cost="count", required=(), allowed=None):
    forecast = SetForecast(layers)
    names = [layer.name for layer in layers]
    return IslandCuts(
        forecast,
        prices=prices_for(cost, forecast),
        required=forecast.mask(required),
        allowed=forecast.mask(names if allowed is None else allowed),
    )


def drawn_limits(data, layers):
    """Names of required and of allowed layers, which may contradict each other."""
    names = st.sets(st.sampled_from([layer.name for layer in layers]))
    return data.draw(names), data.draw(names)


@given(layer_graphs(most=9), PRICES, st.sampled_from(COSTS), st.data())
def test_no_set_that_is_allowed_is_cheaper(layers, error_price, cost, data):
    required, allowed = drawn_limits(data, layers)
    forecast = SetForecast(layers)
    prices = prices_for(cost, forecast)

    def objective(kept):
        price = prices.of(kept, forecast.cost(kept).cast_count)
        return price + error_price * forecast.error(kept) ** 2

    kept = cuts_of(layers, cost, required, allowed).cheapest(error_price)

    least, most = forecast.mask(required), forecast.mask(required | allowed)
    possible = [
        s for s in all_sets(len(layers)) if not (least & ~s).any() and not (s & ~most).any()
    ]
    # Capacities are whole numbers, a billionth of their sum.
    grain = 1e-7 * (error_price * 2 * forecast.powers.sum() + len(layers) + 10)
    assert not (least & ~kept).any()
    assert not (kept & ~most).any()
    assert objective(kept) <= min(map(objective, possible)) + grain


@given(layer_graphs(most=9), PRICES, st.floats(1.0, 1e6), st.sampled_from(COSTS), st.data())
def test_sets_grow_as_the_price_of_error_rises(layers, error_price, factor, cost, data):
    required, allowed = drawn_limits(data, layers)
    # Impacts are multiples of 1/1000: what is near nothing beside them is lost in the rounding.
    assume(error_price * factor < 1e6)
    cuts = cuts_of(layers, cost, required, allowed)

    smaller, larger = cuts.cheapest(error_price), cuts.cheapest(error_price * factor)

    assert not (smaller & ~larger).any()


def test_a_price_of_nothing_keeps_what_is_required_alone():
    layers = chain_of(3.0, 2.0, 1.0)

    assert cuts_of(layers, required=["b"]).cheapest(0.0).tolist() == [False, True, False]


def test_a_layer_is_kept_where_its_error_costs_more_than_itself():
    layers = [layer_of("a", 3.0), layer_of("b", 1.0)]

    assert cuts_of(layers).cheapest(1.0 / 9 * 1.01).tolist() == [True, False]
    assert cuts_of(layers).cheapest(1.0 / 9 * 0.99).tolist() == [False, False]


def test_islands_are_contiguous_where_casts_cost():
    layers = chain_of(10.0, 0.0, 10.0, weight_share=1.0)

    assert cuts_of(layers, "casts").cheapest(1.0).tolist() == [True, True, True]
    assert cuts_of(layers, "count").cheapest(1.0).tolist() == [True, False, True]


def test_a_cast_into_an_island_costs_as_well():
    layers = chain_of(0.0, 1.0, weight_share=1.0)

    # Half a layer and the cast of what it reads are more than 1.2 for its error.
    assert not cuts_of(layers, "casts", allowed=["b"]).cheapest(1.2).any()
    assert cuts_of(layers, "casts", allowed=["b"]).cheapest(1.6).tolist() == [False, True]


def test_a_layer_that_is_rounded_for_its_reader_all_the_same_is_not_worth_keeping():
    layers = chain_of(1.0, 0.0, weight_share=0.0)

    assert not cuts_of(layers, allowed=["a"]).cheapest(1e3).any()
    assert cuts_of(layers).cheapest(1e3).tolist() == [True, True]


def test_casts_for_many_readers_cost_as_one():
    # Between lowered readers it pays to keep this layer at 0.5 and one cast, not at 4 casts.
    names = [f"r{index}" for index in range(4)]
    producer = layer_of("a", 1.0, weight_share=1.0, readers=tuple((n, 0.25) for n in names))
    layers = [producer, *(layer_of(name, 0.0) for name in names)]

    assert cuts_of(layers, "casts").cheapest(2.0).tolist() == [True, *[False] * 4]


@pytest.mark.parametrize("cost", COSTS)
def test_the_same_graph_gives_the_same_set(cost):
    rng = np.random.default_rng(3)
    layers = chain_of(*rng.uniform(0, 1, 12))

    first = [cuts_of(layers, cost).cheapest(price).tolist() for price in np.geomspace(0.1, 1e3, 9)]

    assert first == [
        cuts_of(layers, cost).cheapest(price).tolist() for price in np.geomspace(0.1, 1e3, 9)
    ]
    assert first[-1] != [False] * 12
