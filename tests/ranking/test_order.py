"""The order of layers, and rank correlation against closed forms."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraphy_layerprec.divergence.metrics import DivergenceSums
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.ranking.correlation import rank_correlation
from polygraphy_layerprec.ranking.order import (
    LayerObservation,
    first_output,
    forecast_error,
    rank_layers,
    with_exact_impacts,
)


def observation(index, power=0.0, *, overflow=False, **changes):
    made = LayerObservation(
        name=f"layer{index}",
        node_name="",
        op="MatMul",
        block="block",
        graph_index=index,
        inputs=("x", "", f"w{index}"),
        outputs=(f"y{index}",),
        sums=DivergenceSums(
            element_count=4, reference_power=4.0, introduced_power=1.0, rounding_power=0.75
        ),
        max_abs_input=1.5,
        largest_sum_of_terms=0.0,
        harmful_overflow=overflow,
        impact_power=power,
        impact_method="adjoint",
        readers=(("other", 0.5),),
        flops=12.0,
    )
    return replace(made, **changes)


observations = st.lists(
    st.tuples(st.sampled_from([0.0, 1e-8, 1e-4, 0.3, 7.0]), st.booleans()), min_size=1, max_size=12
).map(lambda rows: [observation(i, power, overflow=o) for i, (power, o) in enumerate(rows)])


@pytest.mark.parametrize(
    ("independent", "share"),
    [
        pytest.param(None, 0.25, id="the energies at the layer, where coherence is not known of"),
        pytest.param(4.0, 0.25, id="the same where errors are independent"),
        pytest.param(1.0, 1 - 0.75 / 4, id="what coherence adds is due to the weights"),
        pytest.param(8.0, 0.0, id="at least nothing"),
    ],
)
def test_the_weights_share_is_what_rounding_the_output_does_not_explain(independent, share):
    sums = DivergenceSums(element_count=9, introduced_power=8.0, rounding_power=6.0)
    layer = observation(0, 4.0, sums=sums, independent_power=independent)

    (ranked,) = rank_layers([layer], FP16)

    assert ranked.weight_share == pytest.approx(share)


def test_overflow_comes_first_in_graph_order_then_impact():
    rows = [
        observation(0, 0.5),
        observation(1, 0.9),
        observation(2, 0.0, overflow=True),
        observation(3, 99.0, overflow=True),
    ]
    assert [layer.graph_index for layer in rank_layers(rows, FP16)] == [2, 3, 1, 0]


@given(observations, st.randoms())
def test_the_order_does_not_depend_on_the_order_of_what_is_observed(rows, rng):
    shuffled = list(rows)
    rng.shuffle(shuffled)
    assert rank_layers(shuffled, FP16) == rank_layers(rows, FP16)


@given(observations)
def test_the_order_is_total_and_shares_add_up(rows):
    layers = rank_layers(rows, FP16)
    assert [layer.rank for layer in layers] == list(range(1, len(rows) + 1))
    assert {layer.graph_index for layer in layers} == set(range(len(rows)))
    total = sum(layer.share for layer in layers)
    assert total == pytest.approx(1.0 if any(row.impact_power for row in rows) else 0.0)
    calm = [layer for layer in layers if not layer.overflow]
    assert all(a.impact >= b.impact for a, b in pairwise(calm))


def test_ids_that_are_not_exact_come_between_overflow_and_impact():
    rows = [
        observation(0, 0.9),
        observation(1, 1e-6, largest_inexact_integer=5720.0),
        observation(2, 1e-4, largest_inexact_integer=5720.0),
        observation(3, 0.0, overflow=True),
    ]
    assert [layer.graph_index for layer in rank_layers(rows, FP16)] == [3, 2, 1, 0]


def test_equal_impacts_stay_in_graph_order():
    rows = [observation(index, 1.0) for index in (3, 1, 2)]
    assert [layer.graph_index for layer in rank_layers(rows, FP16)] == [1, 2, 3]


def test_a_layer_keeps_what_was_observed():
    sums = DivergenceSums(
        element_count=9,
        reference_power=4.0,
        introduced_power=1.0,
        rounding_power=0.75,
        cumulative_power=9.0,
        max_abs=7.0,
        overflow_count=1,
        underflow_count=2,
        reference_nonfinite_count=3,
        candidate_nonfinite_count=4,
    )
    (layer,) = rank_layers([observation(5, 0.25, sums=sums)], FP16)
    assert (layer.impact, layer.share) == (0.5, 1.0)
    assert (layer.introduced_error, layer.cumulative_error) == (0.5, 1.5)
    assert layer.weight_share == 0.25
    assert (layer.element_count, layer.overflow_count, layer.underflow_count) == (9, 1, 2)
    assert (layer.reference_nonfinite_count, layer.candidate_nonfinite_count) == (3, 4)
    assert (layer.max_abs, layer.max_abs_input, layer.flops) == (7.0, 1.5, 12.0)
    assert (layer.inputs, layer.outputs) == (("x", "", "w5"), ("y5",))
    assert (layer.name, layer.node_name, layer.block) == ("layer5", "", "block")
    assert layer.readers == (("other", 0.5),)
    assert layer.kind == "benign overflow"
    assert not layer.overflow


def test_a_layer_without_error_has_no_share_of_weights():
    (layer,) = rank_layers([observation(0, sums=DivergenceSums(element_count=1))], FP16)
    assert layer.weight_share == 0.0
    assert layer.kind == "exact"


def test_the_share_of_weights_is_at_least_nothing():
    sums = DivergenceSums(introduced_power=1.0, rounding_power=2.0, reference_power=1.0)
    assert rank_layers([observation(0, sums=sums)], FP16)[0].weight_share == 0.0


def test_what_rounding_does_not_do_is_due_to_the_weights():
    sums = DivergenceSums(introduced_power=1.0, rounding_power=0.0, reference_power=1.0)
    assert rank_layers([observation(0, sums=sums)], FP16)[0].weight_share == 1.0


def test_squares_add_up_to_the_forecast():
    layers = rank_layers([observation(0, 9.0), observation(1, 16.0)], FP16)
    assert forecast_error(layers) == pytest.approx(5.0)
    assert forecast_error([]) == 0.0


def test_the_forecast_does_not_depend_on_the_order():
    rng = random.Random(0)
    layers = list(rank_layers([observation(i, rng.random()) for i in range(50)], FP16))
    expected = math.sqrt(math.fsum(layer.impact**2 for layer in layers))
    assert forecast_error(layers) == pytest.approx(expected)


# Without ties, Spearman's rho is 1 - 6 sum(d^2) / (n (n^2 - 1)).
@given(st.permutations(list(range(8))))
def test_rank_correlation_is_the_textbook_formula_without_ties(order):
    squares = sum((a - b) ** 2 for a, b in enumerate(order))
    expected = 1 - 6 * squares / (8 * (8**2 - 1))
    assert rank_correlation(range(8), order) == pytest.approx(expected)


def test_ties_share_their_mean_rank():
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    assert rank_correlation([1, 5, 5, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))


def test_only_the_order_matters():
    values = [3.0, 1.0, 2.0, 8.0]
    assert rank_correlation(values, np.exp(values)) == 1.0
    assert rank_correlation(values, [-v for v in values]) == -1.0


@pytest.mark.parametrize(
    ("first", "second"), [([], []), ([1], [2]), ([1, 1], [1, 2]), ([1, 2], [3, 3])]
)
def test_where_there_is_no_order_there_is_no_correlation(first, second):
    assert rank_correlation(first, second) is None


def test_measured_impacts_take_the_place_of_those_forecast():
    kept, measured = observation(0, 4.0), observation(1, 4.0, outputs=("", "state"))

    changed = with_exact_impacts([kept, measured], {"state": 3.0, "elsewhere": 1.0})

    assert changed[0] is kept
    assert (changed[1].impact_power, changed[1].impact_method) == (9.0, "exact")
    assert first_output(()) == ""
