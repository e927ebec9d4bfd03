"""The error and the cost of sets of layers, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraphy_layerprec.records import SelectionCost
from polygraphy_layerprec.selection import SetForecast
from tests.layer_graphs import all_sets, chain_of, layer_graphs, layer_of, mask_of


def error_of(layers, names):
    return SetForecast(layers).error(mask_of(layers, names))


def cost_of(layers, names):
    return SetForecast(layers).cost(mask_of(layers, names))


@pytest.mark.parametrize(
    ("kept", "power"),
    [
        ("", 9 + 16 + 144),
        ("c", 9 + 16),  # nobody reads the last: it goes to an output as it is
        ("b", 9 + 16 + 144),  # its only reader is lowered and rounds what it takes
        ("bc", 9),
        ("ac", 9 + 16),
        ("abc", 0),
    ],
)
def test_in_a_chain_an_output_is_exact_if_its_reader_is_kept_too(kept, power):
    assert error_of(chain_of(3.0, 4.0, 12.0), kept) == pytest.approx(power**0.5)


def test_what_is_due_to_weights_goes_away_though_the_reader_is_lowered():
    layers = chain_of(3.0, 4.0, weight_share=0.75)

    assert error_of(layers, "a") == pytest.approx((0.25 * 9 + 16) ** 0.5)


def diamond():
    """`a` is read by `b` and `c`, and `d` reads both; a tenth of `a` goes straight to an output."""
    return [
        layer_of("a", 10.0, readers=(("b", 0.6), ("c", 0.3)), weight_share=0.2),
        layer_of("b", 1.0, readers=(("d", 1.0),)),
        layer_of("c", 2.0, readers=(("d", 1.0),)),
        layer_of("d", 3.0),
    ]


@pytest.mark.parametrize(
    ("kept", "power"),
    [
        ("", 100 + 1 + 4 + 9),
        ("a", 80 * 0.9 + 1 + 4 + 9),
        ("ab", 80 * 0.3 + 1 + 4 + 9),  # b is read by d, which is lowered
        ("abc", 1 + 4 + 9),
        ("abd", 80 * 0.3 + 4),
        ("bcd", 100),
        ("abcd", 0),
    ],
)
def test_in_a_diamond_each_lowered_reader_rounds_its_share(kept, power):
    assert error_of(diamond(), kept) == pytest.approx(power**0.5)


@pytest.mark.parametrize(
    ("kept", "casts"),
    [("", 0), ("a", 1), ("b", 2), ("ab", 2), ("bc", 3), ("abc", 2), ("bcd", 1), ("abcd", 0)],
)
def test_one_cast_serves_all_readers_on_the_other_side(kept, casts):
    assert cost_of(diamond(), kept).cast_count == casts


def test_the_cost_counts_layers_and_their_share_of_the_operations():
    layers = [layer_of("a", 1.0, flops=30.0), layer_of("b", 1.0, flops=10.0)]

    assert cost_of(layers, "a") == SelectionCost(1, 0.75, 0)
    assert cost_of(chain_of(1.0, 1.0, flops=0.0), "a") == SelectionCost(1, 0.0, 1)


def test_readers_that_are_not_ranked_count_as_the_way_out():
    layers = [layer_of("a", 2.0, readers=(("unmeasured", 1.0),))]

    assert error_of(layers, "a") == 0.0


def test_layers_are_found_by_name():
    forecast = SetForecast(diamond())

    assert forecast.mask(["d", "a", "a"]).tolist() == [True, False, False, True]
    assert forecast.mask([]).tolist() == [False] * 4
    with pytest.raises(KeyError, match="nobody"):
        forecast.mask(["nobody"])


@given(layer_graphs(), st.integers(0, 7))
def test_one_more_layer_in_fp32_never_adds_error(layers, added):
    forecast = SetForecast(layers)
    for kept in all_sets(len(layers)):
        more = kept.copy()
        more[added % len(layers)] = True
        assert forecast.error(more) <= forecast.error(kept) * (1 + 1e-12)


@given(layer_graphs())
def test_the_extremes_are_the_whole_error_and_none(layers):
    forecast = SetForecast(layers)
    whole = np.sqrt(sum(layer.impact**2 for layer in layers))

    assert forecast.error(np.zeros(len(layers), bool)) == pytest.approx(whole)
    assert forecast.error(np.ones(len(layers), bool)) == 0.0
