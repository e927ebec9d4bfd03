"""What the charts along the depth show, by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraphy_layerprec.precision import BF16, FP16
from polygraphy_layerprec.report.series import (
    BlockRun,
    block_runs,
    execution_positions,
    largest_magnitude,
    log_axis,
    magnitude_axis,
    on_log_axis,
    powers_of_ten,
    underflow_fraction,
)
from tests.rankings import make_layer


def test_positions_count_measured_layers_in_execution_order():
    layers = [make_layer(1, "c", graph_index=90), make_layer(2, "a", graph_index=3)]

    assert execution_positions([*layers, make_layer(3, "b", graph_index=41)]) == (3, 1, 2)


def test_blocks_follow_one_another_and_may_come_again():
    blocks = ["a", "a", "b", "a"]
    layers = [make_layer(1, f"l{i}", graph_index=i, block=b) for i, b in enumerate(blocks)]

    assert block_runs(layers[::-1]) == (
        BlockRun("a", 1, 2),
        BlockRun("b", 3, 3),
        BlockRun("a", 4, 4),
    )


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([0.002, 0.05], (1e-3, 1e-1)),
        ([0.001], (1e-4, 1e-2)),
        ([0.0, None, 3.0], (1e0, 1e1)),
        ([1e-30, 0.5], (1e-8, 1e0)),
        ([0.0], (1e-8, 1.0)),
        ([], (1e-8, 1.0)),
    ],
)
def test_an_axis_ends_at_powers_of_ten_eight_decades_apart_at_most(values, ends):
    assert log_axis(values) == pytest.approx(ends)


@given(st.lists(st.floats(1e-300, 1e30), min_size=1))
def test_the_largest_value_is_always_on_the_axis(values):
    bottom, top = log_axis(values)

    assert bottom < top
    assert bottom * 0.999 <= max(values) <= top * 1.001


@pytest.mark.parametrize("value", [5e-324, 1e-308, 1e308, 1.7976931348623157e308])
def test_an_axis_for_the_last_numbers_that_there_are_ends_at_finite_ones(value):
    for values in ([value], [value, 1.0]):
        bottom, top = log_axis(values)

        assert 0.0 < bottom < top < math.inf


def test_what_is_below_the_axis_is_drawn_at_its_bottom():
    ends = (1e-3, 1e0)

    assert [on_log_axis(value, ends) for value in (0.0, 1e-9, 0.02, 5.0)] == [1e-3, 1e-3, 0.02, 1.0]
    assert math.isnan(on_log_axis(None, ends))


def test_powers_of_ten_go_from_one_end_to_the_other():
    assert powers_of_ten((1e-3, 1e0)) == pytest.approx([1e-3, 1e-2, 1e-1, 1e0])


def test_the_end_of_the_range_of_fp16_is_on_the_axis():
    (bottom, top), shows_limit = magnitude_axis([0.5, 300.0], FP16)

    assert shows_limit
    assert (bottom, top) == pytest.approx((0.1, 1e5))


def test_a_mask_of_the_largest_fp32_number_leaves_room_for_the_others():
    (bottom, top), shows_limit = magnitude_axis([0.5, 3.4e38], FP16)

    assert shows_limit
    assert (bottom, top) == pytest.approx((0.1, 1e7))


def test_the_end_of_the_range_of_bf16_is_far_away():
    ends, shows_limit = magnitude_axis([0.5, 300.0], BF16)

    assert not shows_limit
    assert ends == pytest.approx((0.1, 1e3))


def test_a_layer_is_as_large_as_what_it_takes_or_gives():
    assert largest_magnitude(make_layer(max_abs_input=3.0, max_abs=2.0)) == 3.0
    assert largest_magnitude(make_layer(max_abs_input=3.0, max_abs=4.0)) == 4.0


def test_underflow_is_a_share_of_the_elements():
    assert underflow_fraction(make_layer(underflow_count=32, element_count=128)) == 0.25
    assert underflow_fraction(make_layer(underflow_count=0, element_count=0)) == 0.0
