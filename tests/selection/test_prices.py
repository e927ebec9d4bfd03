"""Prices of layers and casts."""

from __future__ import annotations

import pytest

from polygraphy_layerprec.selection import SetForecast
from polygraphy_layerprec.selection.prices import Hardware, prices_for
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


def time_prices(*, flops=0.0, elements=128, samples=1, **ratios):
    layers = chain_of(1.0, 1.0, flops=flops, element_count=elements)
    return prices_for("time", SetForecast(layers, samples), Hardware(**ratios))


def test_a_layer_bound_by_operations_loses_what_low_precision_gains():
    # 8 operations take 8 in FP32, 1 in FP16: 7/8 of the average layer, and what keeping costs.
    prices = time_prices(flops=8.0, elements=0, fp16_speedup=8.0)

    assert prices.layers.tolist() == pytest.approx([0.875 + 0.25] * 2)
    assert prices.casts.tolist() == pytest.approx([0.02] * 2)
    assert time_prices(flops=8.0, elements=0, fp16_speedup=2.0).layers[0] == pytest.approx(0.75)


def test_a_layer_bound_by_memory_loses_half_and_a_cast_a_quarter():
    # Read and written: 4 bytes each in FP32, 2 in FP16; a fused cast moves 2 more.
    prices = time_prices(elements=100)

    assert prices.layers.tolist() == pytest.approx([0.5 + 0.25] * 2)
    assert prices.casts.tolist() == pytest.approx([0.25 + 0.02] * 2)


def test_elements_are_those_of_one_sample():
    once = time_prices(flops=1e4, elements=100, samples=1, flops_per_byte=25.0)
    twice = time_prices(flops=1e4, elements=200, samples=2, flops_per_byte=25.0)

    assert once.layers.tolist() == twice.layers.tolist()
    assert once.casts.tolist() == twice.casts.tolist()


def test_without_layers_nothing_costs_anything():
    assert prices_for("time", SetForecast([])).of(mask_of([], ""), 3) == 0.0
