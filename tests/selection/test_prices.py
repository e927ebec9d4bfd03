"""Prices of layers and casts."""

from __future__ import annotations

import pytest

from polygraphy_layerprec.selection import SetForecast
from polygraphy_layerprec.selection.prices import prices_for
from tests.layer_graphs import chain_of, mask_of


def price_of(cost, names, **changes):
    layers = chain_of(3.0, 2.0, 1.0, **changes)
    forecast = SetForecast(layers)
    kept = mask_of(layers, names)
    return prices_for(cost, forecast).of(kept, forecast.cost(kept).cast_count)


@pytest.mark.parametrize(
    ("cost", "fewer", "more"),
    [
        ("count", "a", "ab"),  # one cast each
        ("count", "bc", "abc"),
        ("casts", "abc", "ac"),  # more layers, but no cast
        ("casts", "ab", "b"),
        ("flops", "a", "ab"),
    ],
)
def test_what_is_to_be_saved_decides(cost, fewer, more):
    assert price_of(cost, fewer) < price_of(cost, more)


def test_casts_decide_between_as_many_layers():
    assert price_of("count", "ab") < price_of("count", "ac")


def test_the_operations_of_all_layers_together_cost_as_many_layers():
    assert price_of("flops", "abc") == pytest.approx(3.0 + 3 * 0.02)
    assert price_of("flops", "abc", flops=0.0) == pytest.approx(3 * 0.02)


def test_nothing_kept_costs_nothing():
    assert price_of("count", "") == 0.0
